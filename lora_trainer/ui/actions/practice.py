"""The practice project in a WebUI: a tiny checkpoint and a dataset, to try the whole way in minutes."""

from __future__ import annotations

from lora_trainer.dataset.prepare import DATASETS
from lora_trainer.demo.install import Practice, install_practice
from lora_trainer.errors import ConfigError, LoraTrainerError
from lora_trainer.ui import views
from lora_trainer.ui.desk import Desk
from lora_trainer.ui.forms import Answer, Page
from lora_trainer.ui.job import Job


def install_for(job: Job) -> Practice:
    """Put it where the WebUI finds it.

    Raises:
        LoraTrainerError: there is no WebUI, or a file is in the way.
    """
    folder = job.host.checkpoint_dir()
    if folder is None:
        raise ConfigError("There is no WebUI to install the practice model in; this page has its checkpoint already.")
    made = install_practice(folder, job.output / DATASETS)
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
    answer.html["practice_answer"] = views.note(
        f"The practice model is installed. Press the refresh button beside the list of checkpoints at the top of the "
        f"page, choose {made.checkpoint.name} there, then press Check and choose the preset Practice."
    )
    desk.remember()
    return answer
