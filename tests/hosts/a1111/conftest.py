"""What the tests of A1111's adapter share: a WebUI, the adapter, and the model it has taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.training.events import CancelToken
from tests.support.fake_webui import WebUI, installed


@pytest.fixture
def webui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebUI]:
    with installed(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def host(webui: WebUI) -> Any:
    from lora_trainer.hosts.a1111.host import A1111Host

    return A1111Host()


@pytest.fixture
def taken(host: Any) -> Iterator[Any]:
    with host.working("task(x)", CancelToken()), host.take("no") as model:
        yield model
