"""Every option of the table changes what it says in a real run of two steps, and nothing else.

What is compared, and what each option changes of it, is in tests/support/options: a file for each kind of option.
"""

from __future__ import annotations

from collections import ChainMap

import pytest
from support.options import data, files, lora, loss, rates, words
from support.options.run import Case, World

from lora_trainer.config.run import OPTIONS

TABLES = (data.CASES, words.CASES, lora.CASES, rates.OPTIMIZER, rates.SCHEDULE, loss.CASES, files.CASES)
CASES: ChainMap[str, Case] = ChainMap(*TABLES)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("options"))


def test_no_option_is_forgotten() -> None:
    assert sorted(name for table in TABLES for name in table) == sorted(OPTIONS)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_changes_what_it_says_and_nothing_else(world: World, name: str) -> None:
    case = CASES[name]
    plain, changed = world.run(**case.given), world.run(**{**case.given, name: case.value})
    assert plain.changes(changed) - case.maybe == case.changes
    if case.check:
        case.check(plain, changed)


@pytest.mark.parametrize("name", [name for name in OPTIONS if name in CASES and CASES[name].idle])
def test_an_option_has_no_effect_where_it_has_none(world: World, name: str) -> None:
    for given in CASES[name].idle:
        assert world.run(**given).changes(world.run(**{**given, name: CASES[name].value})) == set()
