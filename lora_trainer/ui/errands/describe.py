"""Automatic captions as an errand: with the WebUI's own captioners, or with a model in a folder of the user's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.config import CaptionConfig
from lora_trainer.dataset.belongs import RULES
from lora_trainer.dataset.caption_sheet import CaptionSheet, Row
from lora_trainer.dataset.captioners.automatic import AllDescribed, ImageDescribed, chosen, describe_all
from lora_trainer.dataset.captioners.kinds import KINDS, Kind, check_folder, kind_of, opened
from lora_trainer.dataset.captioners.wording import Wording
from lora_trainer.dataset.plans import plan_for
from lora_trainer.errors import ConfigError, FileError, quoted
from lora_trainer.files import given_path
from lora_trainer.ui.request import dataset_of, flag_of, refuse_unknown, text_of
from lora_trainer.ui.states import Stage

if TYPE_CHECKING:
    from lora_trainer.hosts.base import Captioner, Host

KEYS = ("dataset", "captioner", "model", "existing", "overwrite", "trigger", "subject", "threshold", "deny")


class Describe:
    """Captions for the images of a dataset."""

    def __init__(self, sheet: CaptionSheet, rows: list[Row], wording: Wording, kind: Kind, model: Path | None) -> None:
        self.name = f"captions of {sheet.dataset.name}"
        self._sheet, self._rows, self._wording, self._kind, self._model = sheet, rows, wording, kind, model

    def stages(self, host: Host, stopped: Callable[[], bool]) -> Iterator[Stage]:
        """See :class:`lora_trainer.ui.errands.errand.Errand`."""
        total = len(self._rows)
        yield Stage("captioning", "caption", 0, total, f"Loading {self._kind.label}")
        for event in describe_all(self._sheet, self._rows, self._captioner(host), self._wording, stopped):
            if isinstance(event, ImageDescribed):
                told = f"Image {event.done} of {event.total} described"
                yield Stage("captioning", "caption", event.done, event.total, told)
            elif isinstance(event, AllDescribed):
                yield Stage("captioning", "caption", total, total, event.sentence, event.unreadable)

    def _captioner(self, host: Host) -> AbstractContextManager[Captioner]:
        if self._model is None:
            return host.captioner(self._kind.name)
        return nullcontext(opened(self._kind.name, self._model))


def asked_for(values: Mapping[str, Any], host: Host, output: Path) -> Describe:
    """The errand that a request asks for; everything that can be found wrong with it is found here.

    Raises:
        LoraTrainerError: in one sentence.
    """
    refuse_unknown(values, KEYS, "caption")
    sheet = CaptionSheet(dataset_of(values.get("dataset") or ""), CaptionConfig(), output)
    kind = kind_of(text_of(values, "captioner", f"one of {', '.join(KINDS)}"))
    subject = str(values.get("subject") or "")
    plan_for(subject)  # refuses an unknown kind
    deny = tuple(tag.strip() for tag in str(values.get("deny") or "").split(",") if tag.strip())
    trigger, existing = str(values.get("trigger") or "").strip(), str(values.get("existing") or "skip")
    wording = Wording(existing, trigger, subject, _threshold(values.get("threshold"), kind), deny)
    model = _model(kind, str(values.get("model") or "").strip(), host.captioners())
    rows = chosen(sheet, wording, flag_of(values, "overwrite") is True)
    return Describe(sheet, rows, wording, kind, model)


def _model(kind: Kind, typed: str, ours: Mapping[str, str]) -> Path | None:
    """The folder with the model; None for the WebUI's own."""
    if not typed and kind.name in ours:
        if ours[kind.name]:
            raise FileError(f"{kind.label}: {ours[kind.name]}")
        return None
    return check_folder(kind, given_path(typed, "The folder") if typed else None)


def _threshold(given: object, kind: Kind) -> float:
    if given is None or given == "":
        return kind.threshold
    try:
        return float(str(given))
    except ValueError:
        raise ConfigError(f"threshold can't be {quoted(given)}; give a probability from 0 to 1.") from None


def offered(host: Host) -> dict[str, Any]:
    """What there is to choose from, for the page: captioners, and what belongs to which kind of subject."""
    ours = host.captioners()
    rows = [
        {
            "name": kind.name, "label": kind.label, "gives": kind.gives, "threshold": kind.threshold,
            "own": kind.name in ours, "problem": ours.get(kind.name, ""), "folder": bool(kind.module),
            "files": [list(names) for names in kind.files], "source": kind.source,
        }
        for kind in KINDS.values()
        if kind.module or kind.name in ours
    ]  # fmt: skip
    return {"captioners": sorted(rows, key=lambda row: not row["own"]), "rules": RULES}
