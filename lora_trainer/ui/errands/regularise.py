"""Regularisation images as an errand: the loaded checkpoint makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.dataset.regularisation import Wanted, make_images, sentence, suggested, wanted
from lora_trainer.errors import ConfigError, UnsupportedModelError, quoted
from lora_trainer.ui.request import folder_of, refuse_unknown, text_of
from lora_trainer.ui.states import Stage

if TYPE_CHECKING:
    from lora_trainer.hosts.base import Host

KEYS = ("dataset", "class", "images", "subject")


class Regularise:
    """Images of a class."""

    def __init__(self, plan: Wanted) -> None:
        self.plan = plan
        self.name = f"regularisation images of {plan.word}"

    def stages(self, host: Host, stopped: Callable[[], bool]) -> Iterator[Stage]:
        """See :class:`lora_trainer.ui.errands.errand.Errand`."""
        done, total = 0, self.plan.images
        yield Stage("generating", "image", done, total, "Making regularisation images")
        for made in make_images(host, self.plan, stopped):
            done = made.done
            yield Stage("generating", "image", done, total, f"Regularisation image {done} of {total}")
        yield Stage("generating", "image", done, total, sentence(self.plan, done))


def asked_for(values: Mapping[str, Any], host: Host, output: Path) -> Regularise:
    """The errand that a request asks for.

    Raises:
        LoraTrainerError: in one sentence.
    """
    refuse_unknown(values, KEYS, "regularise")
    word = text_of(values, "class", "the word for what your subject is, such as woman, dog or car")
    loaded = host.glance()
    if loaded is not None and loaded.refusal:
        raise UnsupportedModelError(loaded.refusal)
    number = str(values.get("images") or "").strip() or str(suggested(folder_of(values.get("dataset") or "")))
    if not number.isdecimal() or len(number) > 6:
        raise ConfigError(f"images can't be {quoted(number)}; give a whole number.")
    known = (loaded.checkpoint_path or loaded.checkpoint) if loaded is not None else "checkpoint"
    return Regularise(wanted(output, word, Path(known), int(number), str(values.get("subject") or "")))
