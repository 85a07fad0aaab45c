"""Dataset files as sd-scripts has them (``--dataset_config``), as TOML or JSON: datasets, each with subsets of images.

A setting is the subset's, else its dataset's, else that of ``[general]``, else the run's. What is read is the same
description that folders named ``<repeats>_<trigger>`` give, and either can be written as a file.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lora_trainer.config import OPTIONS, CaptionConfig, DatasetConfig, OptionRow
from lora_trainer.config.checks import dataset_contradictions
from lora_trainer.config.values import check_value, convert, plain, unknown_name
from lora_trainer.dataset.items import Folder
from lora_trainer.errors import ConfigError, DatasetError, LoraTrainerError, quoted, shortened
from lora_trainer.files import read_json, write_json
from lora_trainer.toml_file import Key, key_lines, read_toml, write_toml

ENDINGS = (".toml", ".json")
DATASET_OPTIONS = {  # sd-scripts' name -> ours; those of a subset may stand above it, these not below
    "resolution": "resolution", "batch_size": "train_batch_size", "enable_bucket": "enable_bucket",
    "min_bucket_reso": "min_bucket_reso", "max_bucket_reso": "max_bucket_reso",
    "bucket_reso_steps": "bucket_reso_steps", "bucket_no_upscale": "bucket_no_upscale",
    "validation_split": "validation_split", "validation_seed": "validation_seed",
    "resize_interpolation": "resize_interpolation",
}  # fmt: skip
SUBSET_OPTIONS = (
    "caption_extension", "caption_prefix", "caption_suffix", "caption_separator", "secondary_separator",
    "shuffle_caption", "keep_tokens", "keep_tokens_separator", "caption_dropout_rate",
    "caption_dropout_every_n_epochs", "caption_tag_dropout_rate", "token_warmup_min", "token_warmup_step",
    "enable_wildcard", "flip_aug", "color_aug", "random_crop", "alpha_mask",
    "resize_interpolation",
)  # fmt: skip
WORDS = "class_tokens"
OWN = ("image_dir", "is_reg", "conditioning_data_dir")  # of a subset alone
NO_EFFECT = ("cache_info",)  # speed only
REFUSED = {
    "face_crop_aug_range": "crop the faces beforehand",
    "metadata_file": "write its captions beside the images, with caption FOLDER --metadata FILE",
    "custom_attributes": "set diff_output_preservation of the run",
    "network_multiplier": "give less weight by fewer repeats",
}
MASKS = "conditioning_data_dir"
FOLDERS = ("image_dir", MASKS)
WITHOUT_MASKS = (WORDS, "is_reg", "alpha_mask")  # what sd-scripts doesn't take in a subset that has masks
CARRIED = "dataset_config"  # where settings have a dataset file's content, or its path
REPEATS = {"minimum": 1, "maximum": 10**9}


def is_dataset_file(path: Path) -> bool:
    """Whether a path names such a file, by its ending."""
    return path.suffix.lower() in ENDINGS and path.is_file()


def holds_datasets(path: Path) -> bool:
    """Whether a file that can be read is a dataset file and nothing else, by what is in it.

    Raises:
        FileError, ConfigError: if it can't be read.
    """
    return is_dataset_file(path) and "datasets" in _content(path)


def carries_datasets(content: Mapping[str, Any]) -> bool:
    """Whether settings of ours, or a ``run.json``, have a dataset file's content in them."""
    return isinstance(content.get(CARRIED), dict)


def _content(path: Path) -> Mapping[str, Any]:
    content = read_toml(path) if path.suffix.lower() == ".toml" else read_json(path)
    return content if isinstance(content, dict) else {}


def _named(path: Path) -> Path:
    """The dataset file that settings name by its path, from the current folder or their own; else ``path``."""
    name = _content(path).get(CARRIED)
    places = (Path(name).expanduser(), path.parent / name) if isinstance(name, str) and name else ()
    return next((place for place in places if is_dataset_file(place)), path)


def _description(path: Path) -> Mapping[str, Any]:
    content = _content(path)
    inner: Mapping[str, Any] = content[CARRIED] if carries_datasets(content) else content
    return inner


def read_dataset_file(path: Path, config: DatasetConfig, caption: CaptionConfig) -> list[Folder]:
    """The subsets, in order.

    Args:
        config, caption: of the run, for what the file leaves open.

    Raises:
        FileError: if the file can't be read.
        DatasetError: in one sentence, with the line where there is one.
    """
    path = _named(path)
    content = _description(path)
    file = _File(path, key_lines(path) if path.suffix.lower() == ".toml" else {})
    if not _tables(content.get("datasets")):
        raise DatasetError(
            f"{shortened(path.name)} is no dataset file: it has no [[datasets]] with [[datasets.subsets]]."
        )
    file.refuse_others(content, (), ("general", "datasets"))
    above = (*DATASET_OPTIONS, *SUBSET_OPTIONS, "num_repeats", WORDS)
    general = file.options(content.get("general", {}), ("general",), above)
    base = {**_values(config), "extra_resolutions": "", **_values(caption), "num_repeats": 1}  # sizes of the run's own
    found: list[Folder] = []
    for number, dataset in enumerate(content["datasets"]):
        at: Key = ("datasets", number)
        own = file.options(dataset, at, (*above, "subsets"))
        if not _tables(dataset.get("subsets")):
            raise DatasetError(
                f"{file.where(at)}: this dataset has no [[datasets.subsets]]; give it one with image_dir."
            )
        for index, subset in enumerate(dataset["subsets"]):
            found.append(file.folder(subset, (*at, "subsets", index), base, {**general, **own}, number + 1))
    _refuse_missing(file, found)
    return found


def tables_of(folders: Sequence[Folder]) -> dict[str, Any]:
    """Folders as a dataset file says them, in full; plain values, for TOML and JSON."""
    datasets: dict[tuple[object, ...], dict[str, Any]] = {}
    for folder in folders:
        options = {**_values(folder.config), **_values(folder.caption)}
        values = {  # what a subset may have of its own stands there, else subsets of a dataset would come apart
            name: plain(options[option]) for name, option in DATASET_OPTIONS.items() if name not in SUBSET_OPTIONS
        }
        subset: dict[str, Any] = {"image_dir": str(folder.path), "num_repeats": folder.repeats}
        subset |= {"class_tokens": folder.trigger} if folder.trigger else {}
        subset |= {"is_reg": True} if folder.is_reg else {}
        subset |= {MASKS: str(folder.masks)} if folder.masks else {}
        told = [name for name in SUBSET_OPTIONS if name in folder.given or options[name] != OPTIONS[name].default]
        subset |= {name: options[name] for name in told}
        subset["caption_extension"] = folder.caption.caption_extension  # sd-scripts looks for .caption by itself
        key = (folder.number, *map(str, values.items()))
        datasets.setdefault(key, {**values, "subsets": []})["subsets"].append(subset)
    return {"datasets": list(datasets.values())}


def write_dataset_file(path: Path, folders: Sequence[Folder]) -> list[str]:
    """Write folders as a dataset file, TOML or JSON by its ending; sentences on what sd-scripts won't take of it.

    Raises:
        FileError: if it can't be written.
    """
    whole = [replace(one, path=one.path.absolute(), masks=one.masks and one.masks.absolute()) for one in folders]
    tables = tables_of(whole)  # sd-scripts is started in a folder of its own
    write = write_toml if path.suffix.lower() == ".toml" else write_json
    write(path, tables)
    return [line for number, table in enumerate(tables["datasets"], 1) for line in _unlike_sd_scripts(number, table)]


def alone(path: Path, beside: Path) -> str:
    """A dataset file that other programs read: itself, or what settings carry, written beside the file ``beside``.

    Raises:
        FileError, ConfigError: if it can't be read or written.
    """
    path = _named(path)
    content = _content(path)
    if not carries_datasets(content):
        return str(path)
    made = beside.with_name(f"{beside.stem}.dataset.json")
    write_json(made, _absolute(content[CARRIED], _File(path)))
    return str(made)


def _absolute(content: Mapping[str, Any], file: _File) -> dict[str, Any]:
    """A dataset file's content for another place: folders that are named from the file's own are named in full."""
    copy: dict[str, Any] = json.loads(json.dumps(content))
    for dataset in copy["datasets"] if _tables(copy.get("datasets")) else ():
        for subset in dataset["subsets"] if _tables(dataset.get("subsets")) else ():
            texts = {name: text.strip() for name in FOLDERS if isinstance(text := subset.get(name), str)}
            found = {name: file.found(text) for name, text in texts.items() if text}
            subset |= {name: str(folder) for name, folder in found.items() if folder.is_dir()}
    return copy


def _unlike_sd_scripts(number: int, table: Mapping[str, Any]) -> Iterator[str]:
    """With masks a dataset is of another kind there: all its subsets have masks, and none of :data:`WITHOUT_MASKS`."""
    masked = [subset for subset in table["subsets"] if MASKS in subset]
    if masked and len(masked) < len(table["subsets"]):
        yield (
            f"sd-scripts won't take dataset {number}, in which only some subsets have masks ({MASKS}); for it, put "
            "them into a dataset of their own."
        )
    if names := [name for name in WITHOUT_MASKS if any(name in subset for subset in masked)]:
        yield f"sd-scripts won't take {' and '.join(names)} in dataset {number}, because it has masks ({MASKS})."


@dataclass(frozen=True)
class _File:
    path: Path
    lines: Mapping[Key, int] = field(default_factory=dict)

    def where(self, key: Key) -> str:
        """The file and the line of a key, or of the table around it."""
        name = shortened(self.path.name)
        line = next((self.lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in self.lines), 0)
        return f"{name}, line {line}" if line else name

    def refuse_others(self, table: Mapping[str, Any], at: Key, known: Sequence[str]) -> None:
        """Refuse keys that mean nothing here."""
        for name in table:
            if name in known or name in NO_EFFECT:
                continue
            if name in REFUSED and (table[name] or name == "custom_attributes") and table[name] != 1:
                raise DatasetError(f"{self.where((*at, name))}: {name} isn't possible here; {REFUSED[name]}.")
            if name in REFUSED:
                continue
            sentence = unknown_name(name, known)
            if name in OWN or name in DATASET_OPTIONS:
                place = "[[datasets.subsets]]" if name in OWN else "[[datasets]] or [general]"
                sentence = f"{name} belongs into {place}; move it there."
            elif not sentence.endswith("?"):
                sentence = f"{quoted(name)} is no setting of a dataset file; docs/kohya.md lists those that are."
            raise DatasetError(f"{self.where((*at, name))}: {sentence}")

    def options(self, table: Any, at: Key, known: Sequence[str]) -> dict[str, Any]:
        """The settings of a table by our names, read and checked."""
        if not isinstance(table, Mapping):
            raise DatasetError(f"{self.where(at)}: {at[-1]} can't be {quoted(table)}; it must be a table.")
        self.refuse_others(table, at, known)
        found: dict[str, Any] = {}
        for name, value in table.items():
            option = DATASET_OPTIONS.get(name, name)
            if name == WORDS:
                found[name] = self.words(value, (*at, name))
            if name in OWN or name == "subsets" or option not in (*OPTIONS, "num_repeats"):
                continue
            row = OPTIONS.get(option)
            limits = _limits(row) if row else REPEATS
            try:
                read = convert(name, value, row.type if row else "int")
                check_value(name, read, limits)
            except ConfigError as error:
                raise DatasetError(f"{self.where((*at, name))}: {error}") from None
            found[option] = read
        return found

    def folder(self, table: Any, at: Key, base: Mapping[str, Any], above: Mapping[str, Any], number: int) -> Folder:
        """One subset; ``base`` are the run's settings, ``above`` those that the file has above it."""
        own = self.options(table, at, (*OWN, *SUBSET_OPTIONS, "num_repeats", WORDS))
        options = {**base, **above, **own}
        image_dir, masks = table.get("image_dir") or "", self.words(table.get(MASKS) or "", (*at, MASKS))
        if not isinstance(image_dir, str) or not image_dir.strip():
            raise DatasetError(f"{self.where(at)}: a subset needs image_dir, the folder with its images.")
        try:
            is_reg = bool(convert("is_reg", table.get("is_reg", False), "bool"))
            config, caption = _made(DatasetConfig, options), _made(CaptionConfig, options)
            for sentence in dataset_contradictions(config):
                raise ConfigError(sentence)
        except LoraTrainerError as error:
            raise DatasetError(f"{self.where(at)}: {error}") from None
        return Folder(
            self.found(image_dir), options["num_repeats"], options.get(WORDS, ""), is_reg, config, caption,
            self.found(masks) if masks else None, number, frozenset((*above, *own)),
        )  # fmt: skip

    def words(self, value: Any, key: Key) -> str:
        """A value that must be text."""
        if not isinstance(value, str):
            raise DatasetError(f"{self.where(key)}: {key[-1]} can't be {quoted(value)}; give text.")
        return value.strip()

    def found(self, folder: str) -> Path:
        """A folder that the file names: from the current folder, as sd-scripts does it, else from the file's."""
        for text in (folder, folder.replace("\\", "/")):  # a file from Windows may be used elsewhere
            path = Path(text).expanduser()
            for found in (path, self.path.parent / path):
                if found.is_dir():
                    return found.absolute()
        return Path(folder).expanduser().absolute()


def _refuse_missing(file: _File, folders: Sequence[Folder]) -> None:
    named = [(folder.path, "image_dir") for folder in folders]
    named += [(folder.masks, MASKS) for folder in folders if folder.masks]
    keys = [key for name in ("image_dir", MASKS) for key in file.lines if key[-1] == name]
    at = [f" ({file.where(key).rpartition(', ')[2]})" for key in keys]
    missing = [
        f"{path}{at[n] if len(at) == len(named) else ''}" for n, (path, _) in enumerate(named) if not path.is_dir()
    ]
    if missing:
        what = "a folder that isn't" if len(missing) == 1 else f"{len(missing)} folders that aren't"
        raise DatasetError(
            f"{shortened(file.path.name)} names {what} there: {', '.join(missing[:3])}{'…' * (len(missing) > 3)}; "
            "correct that."
        )


def _limits(row: OptionRow) -> dict[str, Any]:
    return {"choices": row.choices, "minimum": row.minimum, "maximum": row.maximum, "multiple": row.multiple}


def _tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _values(group: DatasetConfig | CaptionConfig) -> dict[str, Any]:
    return {row.name: getattr(group, row.name) for row in dataclasses.fields(group)}


def _made(kind: type[Any], options: Mapping[str, Any]) -> Any:
    names = {row.name for row in dataclasses.fields(kind)}
    return replace(kind(), **{name: value for name, value in options.items() if name in names})
