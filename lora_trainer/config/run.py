"""What a run is: one table of typed options, grouped by concern.

Every option is one dataclass field. Its name is sd-scripts' name where sd-scripts has the option, its metadata carry
the one-line help, the choices and the range; the CLI (``--set name=value``), the tab, the HTTP API, the saved JSON and
the kohya importer are all bound to this table by that name. Names are unique over all groups, so JSON is flat.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from lora_trainer.config.checks import check_together
from lora_trainer.config.settings import Settings
from lora_trainer.config.values import convert, plain, unknown_name
from lora_trainer.errors import ConfigError, quoted

VERSION = 1  # of the saved JSON; raise it together with an entry in MIGRATIONS
# version -> function that turns a dict of that version into one of the next
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


@dataclass(frozen=True)
class RunConfig(Settings):
    """Everything a run is made of. Frozen: derive another with :meth:`replace`."""

    def __post_init__(self) -> None:
        check_together(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """Build from flat option values; strings are read as the option's type, unknown names are refused.

        Raises:
            ConfigError: names the option, the value and what is possible.
        """
        if not isinstance(values, dict):
            raise ConfigError(f"A configuration can't be {quoted(values)}; give an object of option names and values.")
        values = dict(values)
        version = values.pop("version", VERSION)
        if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= VERSION:
            raise ConfigError(
                f"This configuration has version {quoted(version)}; this program reads 1 to {VERSION}. "
                "Update the extension."
            )
        for old in range(version, VERSION):
            values = MIGRATIONS[old](values)
        return cls().replace(**values)

    def replace(self, **values: Any) -> RunConfig:
        """A copy with some options changed, given by their flat names."""
        changes: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            row = option_row(name)
            changes.setdefault(row.group, {})[name] = convert(name, value, row.type)
        groups = {group: dataclasses.replace(getattr(self, group), **change) for group, change in changes.items()}
        return dataclasses.replace(self, **groups)

    def to_dict(self) -> dict[str, Any]:
        """Flat option values with the version, ready for JSON; the inverse of :meth:`from_dict`."""
        return {"version": VERSION, **{name: plain(self.value(name)) for name in OPTIONS}}

    def value(self, name: str) -> Any:
        """The value of an option by its flat name."""
        return getattr(getattr(self, option_row(name).group), name)


@dataclass(frozen=True)
class OptionRow:
    """One row of the table: what the CLI, the tab and the API need to know of an option."""

    name: str
    group: str
    type: str  # the annotation's text
    default: Any
    help: str
    choices: tuple[Any, ...]
    minimum: float | None
    maximum: float | None
    unit: str
    multiple: int | None
    words: dict[Any, str]  # what each of the choices is, where that isn't plain


def _table() -> dict[str, OptionRow]:
    rows: dict[str, OptionRow] = {}
    for group in dataclasses.fields(Settings):
        for row in dataclasses.fields(group.default_factory):  # type: ignore[arg-type, misc]
            meta = row.metadata
            default = {} if row.default is dataclasses.MISSING else row.default
            rows[row.name] = OptionRow(
                row.name, group.name, str(row.type), default, meta["help"], meta.get("choices", ()),
                meta.get("minimum"), meta.get("maximum"), meta.get("unit", ""), meta.get("multiple"),
                meta.get("words", {}),
            )  # fmt: skip
    return rows


OPTIONS: dict[str, OptionRow] = _table()


def option_row(name: str) -> OptionRow:
    """The row of an option.

    Raises:
        ConfigError: if there is no such option; names the nearest ones.
    """
    row = OPTIONS.get(name)
    if row is None:
        raise ConfigError(unknown_name(name, OPTIONS))
    return row


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Read ``["network_dim=16", …]`` as option values, converted to their types; the last of two equal names wins.

    Raises:
        ConfigError: names the assignment that has no ``=``, an unknown name or a value that doesn't fit.
    """
    values: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        name = name.strip().removeprefix("--")
        if not equals:
            raise ConfigError(
                f"{quoted(text)} isn't an option with a value; write name=value, for instance network_dim=16."
            )
        values[name] = convert(name, value.strip(), option_row(name).type)
    return values
