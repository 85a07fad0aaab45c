"""What the tests of the adapter for Forge's kind of WebUI share: a WebUI, the adapter, and the model it has taken."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.training.events import CancelToken
from tests.support.fake_forge import Forge, installed


@pytest.fixture
def forge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Forge]:
    with installed(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def host(forge: Forge) -> Any:
    from lora_trainer.hosts.webui.which import webui_host

    found = webui_host()
    assert found.name == "forge" and "lora_trainer.hosts.a1111.host" not in sys.modules
    return found


@pytest.fixture
def taken(host: Any) -> Iterator[Any]:
    with host.working("task(x)", CancelToken()), host.take("no") as model:
        yield model
