"""The practice project: a tiny checkpoint, where a WebUI needs one, and a dataset, to try the whole way in minutes."""

from __future__ import annotations

from lora_trainer.dataset.prepare import DATASETS
from lora_trainer.demo.install import Practice, install_practice
from lora_trainer.errors import LoraTrainerError
from lora_trainer.ui import views
from lora_trainer.ui.desk import Desk
from lora_trainer.ui.forms import Answer, Page
from lora_trainer.ui.job import Job


def install_for(job: Job) -> Practice:
    """Put it where the WebUI finds it; without a WebUI, the dataset alone.

    Raises:
        LoraTrainerError: a file is in the way.
    """
    made = install_practice(job.host.checkpoint_dir(), job.output / DATASETS)
    if made.checkpoint is not None:
        job.host.refresh_checkpoints()
    return made


def install(desk: Desk, page: Page) -> Answer:
    """Install it and fill in its dataset."""
    try:
        made = install_for(desk.job)
    except LoraTrainerError as error:
        return Answer({"practice_answer": views.problem(str(error))})
    values = {"dataset": str(made.dataset), "trigger": made.trigger}
    answer = desk.planned(Answer(values=values), desk.page(values))
    told = "The practice images are there; their folder is filled in above. Press Check."
    if made.checkpoint is not None:
        told = (
            "The practice model is installed. Press the refresh button beside the list of checkpoints at the top of "
            f"the page, choose {made.checkpoint.name} there, then press Check and choose the preset Practice."
        )
    answer.html["practice_answer"] = views.note(told)
    desk.remember()
    return answer
