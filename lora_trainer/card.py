"""The finished LoRA's card in the WebUI: ``NAME.json`` and ``NAME.png`` beside ``NAME.safetensors``.

What the user wrote is theirs. A value is set only where the card has none, or still has the one that we wrote before
(remembered in the card under ``lora_trainer``); a preview of the user's own stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.errors import FileError, quoted
from lora_trainer.families import Family, traits
from lora_trainer.files import read_object, replaced, write_json

if TYPE_CHECKING:
    from PIL.Image import Image


PREVIEW_ENDINGS = ("png", "jpg", "jpeg", "webp", "gif")
PREVIEW_WIDTH = 512
OURS = "lora_trainer"  # key in the JSON, and text chunk in the PNG, that tell our own values from the user's
TELLING = {"activation text", "preferred weight", "sd version", "negative text", OURS}  # hardly in any other JSON
KEYS = TELLING | {"description", "notes"}
FLAT = (str, int, float, type(None))
UNSET = ("", None, 0, 0.0, "Unknown")  # what the WebUI's own editor writes into fields that were left alone


@dataclass(frozen=True)
class Card:
    """What was written; a file that was left as it was is None and a notice says why."""

    json: Path | None
    preview: Path | None
    notices: tuple[str, ...] = ()


def write_card(
    lora: Path,
    *,
    trigger: str,
    preferred_weight: float | None = None,
    family: Family | None = None,
    description: str = "",
    notes: str = "",
    negative_text: str = "",
    preview: Image | None = None,
    infotext: str = "",
) -> Card:
    """Write the card of the LoRA file ``lora``.

    Args:
        trigger: the activation text.
        preferred_weight: the strength that the card inserts into a prompt; None leaves it as it is, as with ``family``.
        preview: picture for the card; ``infotext`` is its prompt and settings, readable in the PNG Info tab.

    Raises:
        FileError: if the folder can't be written.
    """
    values: dict[str, Any] = {
        "description": description,
        "sd version": None if family is None else traits(family).card,
        "activation text": trigger,
        "preferred weight": preferred_weight,
        "negative text": negative_text,
        "notes": notes,
    }
    values = {name: value for name, value in values.items() if value is not None}
    path = lora.with_suffix(".json")
    notices: list[str] = []
    written: Path | None = None
    present = _read(path)
    if present is None:
        notices.append(
            f"{path.name} isn't a LoRA's card, so it was left as it is; move or delete it to get a card there."
        )
    else:
        merged, kept = merge(present, values)
        write_json(path, merged)
        written = path
        notices += [
            f"{path.name} keeps its own {key} ({quoted(merged[key])}); this LoRA has {quoted(values[key])}."
            for key in kept
        ]
    return Card(written, _write_preview(lora, preview, infotext), tuple(notices))


def merge(present: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The card with ``values`` filled in, and the names of those where the user's own value stayed."""
    merged = dict(present)
    before = present.get(OURS)
    remembered: dict[str, Any] = dict(before) if isinstance(before, dict) else {}
    kept = []
    for key, value in values.items():
        now = present.get(key)
        if now in UNSET or (key in remembered and now == remembered[key]):
            merged[key] = remembered[key] = value
        elif now != value:
            remembered.pop(key, None)  # the user changed it: theirs from now on
            if value not in UNSET:
                kept.append(key)
    merged[OURS] = remembered
    return merged, kept


def remove_card(lora: Path) -> list[Path]:
    """Remove what :func:`write_card` wrote for a LoRA file, as far as nobody else changed it; gives what is gone.

    Raises:
        OSError: if a file can't be removed.
    """
    path, preview = lora.with_suffix(".json"), lora.with_suffix(".png")
    card = _read(path) or {}
    before = card.get(OURS)
    ours = isinstance(before, dict) and all(
        value in UNSET or (key in before and value == before[key]) for key, value in card.items() if key != OURS
    )
    gone = [path] if ours else []
    gone += [preview] if preview.is_file() and _is_ours(preview) else []
    for one in gone:
        one.unlink()
    return gone


def read_activation_text(lora: Path) -> tuple[str, str]:
    """The user's own activation text of a LoRA's card, and the one that we wrote; each is empty if there is none."""
    card = _read(lora.with_suffix(".json")) or {}
    text, before = str(card.get("activation text") or "").strip(), card.get(OURS)
    ours = isinstance(before, dict) and before.get("activation text") == card.get("activation text")
    return ("", text) if ours else (text, "")


def _read(path: Path) -> dict[str, Any] | None:
    """The card at ``path``, empty where there is no file; None for a file that isn't a card."""
    if not path.exists():
        return {}
    try:
        found = read_object(path)
    except FileError:
        return None
    return found if is_card(found) else None


def is_card(values: Mapping[str, Any]) -> bool:
    """Whether a JSON object is what the WebUI's editor writes: flat, and with keys that are a card's.

    Another program's file (settings, a model's description) may have the LoRA's name, too.
    """
    flat = all(
        isinstance(value, FLAT)
        or (key not in KEYS and isinstance(value, list) and all(isinstance(item, FLAT) for item in value))
        for key, value in values.items()
        if key != OURS
    )
    return flat and (not values.keys() - KEYS or bool(values.keys() & TELLING))


def _write_preview(lora: Path, preview: Image | None, infotext: str) -> Path | None:
    if preview is None:
        return None
    from PIL import Image, PngImagePlugin

    target = lora.with_suffix(".png")
    others = [
        lora.with_name(f"{lora.stem}{middle}.{ending}") for middle in ("", ".preview") for ending in PREVIEW_ENDINGS
    ]
    for path in others:  # the WebUI takes any one of them, so there must be only one
        if path.exists() and not (path == target and _is_ours(path)):
            return None
    scale = PREVIEW_WIDTH / preview.width
    method = Image.Resampling.NEAREST if preview.width <= 128 else Image.Resampling.LANCZOS
    picture = preview.convert("RGB").resize((PREVIEW_WIDTH, max(1, round(preview.height * scale))), method)
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text(OURS, "preview")
    if infotext:
        chunks.add_text("parameters", infotext)
    with replaced(target) as temporary:
        picture.save(temporary, format="PNG", pnginfo=chunks)
    return target


def _is_ours(path: Path) -> bool:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.info.get(OURS) == "preview"
    except (OSError, UnidentifiedImageError):
        return False
