"""Regularisation images that the checkpoint makes itself from the class word, in kohya's layout, each with its prompt.

Trained beside the subject's images, they hold the model to what it made of the class before (Ruiz et al. 2022,
"DreamBooth", prior preservation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer.dataset.layout import find_folders
from lora_trainer.dataset.plans import an
from lora_trainer.dataset.prepare import check_trigger
from lora_trainer.errors import ConfigError, counted, quoted
from lora_trainer.files import file_fingerprint, replaced, write_text
from lora_trainer.hosts.base import GenerateRequest
from lora_trainer.subjects import SUBJECTS, usual_subject

if TYPE_CHECKING:
    from lora_trainer.hosts.base import Host

FOLDER = "regularisation"  # in the output folder
MOST = 1000  # images
LONGEST_CALLED = 40  # characters of a checkpoint's name in that of the folder
SEED = 1  # of the first image; each has the next one


@dataclass(frozen=True)
class Wanted:
    """What is to be made: ``images`` in ``folder/1_<class word>``."""

    folder: Path  # to be given as reg_data_dir
    word: str
    images: int
    subject: str = ""  # the kind, whose contexts make the prompts; "" for what suits the model
    side: int = 0  # px; 0 for the model's own

    @property
    def target(self) -> Path:
        """Holds the images, each with a .txt of its prompt."""
        return self.folder / f"1_{self.word}"

    def prompt(self, index: int, side: int) -> str:
        """That of one image; ``side`` is the model's own, in px."""
        kind = SUBJECTS.get(self.subject) or usual_subject(side)
        as_it_is = kind.name == "practice" or self.word.startswith(("a ", "an ", "the "))
        called = self.word if as_it_is else an(self.word)
        return kind.at(index % len(kind.contexts), called)


@dataclass(frozen=True)
class Made:
    """One more image is there."""

    done: int
    total: int
    path: Path


def wanted(folder: Path, word: str, checkpoint: Path, images: int, subject: str = "") -> Wanted:
    """What to make for a class word.

    Args:
        folder: the output folder; images of each checkpoint are kept apart, by what the file holds, too: another one
            may have the same name.
        checkpoint: its file; where that isn't known or gone, the name has to do.

    Raises:
        LoraTrainerError: one sentence, if the word or the number can't be used.
    """
    if not word.strip():
        raise ConfigError("Which class? Give the word for what your subject is, such as woman, dog or car.")
    if not 1 <= images <= MOST:
        raise ConfigError(f"The number of images can't be {images}; give 1 to {MOST}.")
    if subject and subject not in SUBJECTS:
        raise ConfigError(f"subject can't be {quoted(subject)}; give one of {', '.join(SUBJECTS)}.")
    plain = check_trigger(word, "class word")
    known = f" {file_fingerprint(checkpoint)}" if checkpoint.is_file() else ""
    called = checkpoint.stem[:LONGEST_CALLED].strip()
    return Wanted(folder / FOLDER / f"{plain} - {called}{known}", plain, images, subject)


def suggested(dataset: Path) -> int:
    """As many as an epoch uses: images times repeats.

    Raises:
        DatasetError: if it is no dataset.
    """
    found = find_folders(dataset, False, [])
    return max(1, min(MOST, sum(len(listing.images) * folder.repeats for folder, listing in found)))


def make_images(host: Host, plan: Wanted, stopped: Callable[[], bool] = lambda: False) -> Iterator[Made]:
    """Make those that aren't there yet; inside the host's ``working``.

    Args:
        stopped: asked before each image.
    """
    side = host.info().resolution
    size = plan.side or side
    for index in range(plan.images):
        path = plan.target / f"{index + 1:04}.png"
        if not path.exists():
            if stopped():
                return
            prompt = plan.prompt(index, side)
            image = host.generate(GenerateRequest(prompt, seed=SEED + index, width=size, height=size)).image
            write_text(path.with_suffix(".txt"), prompt)  # first: no image is ever without its prompt
            with replaced(path) as temporary:
                image.convert("RGB").save(temporary, "PNG")
        yield Made(index + 1, plan.images, path)


def sentence(plan: Wanted, done: int) -> str:
    """What there is now, for a person."""
    short = "" if done == plan.images else f" of {plan.images}"
    return f"{counted(done, 'regularisation image')}{short} of “{plan.word}” in {plan.folder}."
