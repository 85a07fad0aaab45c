"""Who may use the tab: what the WebUI's options say, and that the tab's own buttons ask, too."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lora_trainer.cli import main
from lora_trainer.errors import LoraTrainerError
from lora_trainer.ui import settings
from lora_trainer.ui.access import Access, is_loopback, read_hosts
from lora_trainer.ui.forms import Answer

OPTIONS = {
    "api_auth": None, "gradio_auth": None, "gradio_auth_path": None, "listen": False, "share": False, "ngrok": None,
    "server_name": None, "cors_allow_origins": None,
}  # fmt: skip


class OptionInfo:
    """The WebUI's, as far as it is used."""

    def __init__(self, default: Any, label: str, section: Any = None, onchange: Any = None) -> None:
        self.default, self.onchange, self.restrict_api = default, onchange, False

    def info(self, text: str) -> OptionInfo:
        return self


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    rows: dict[str, OptionInfo] = {}
    found = SimpleNamespace(
        cmd_opts=SimpleNamespace(**OPTIONS),
        opts=SimpleNamespace(data={}, rows=rows, add_option=rows.__setitem__),
        demo=None,
        OptionInfo=OptionInfo,
    )
    modules = ModuleType("modules")
    modules.shared = found  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modules", modules)
    return found


@pytest.mark.parametrize(
    ("options", "closed", "guarded"),
    [
        ({}, False, False), ({"listen": True}, True, False), ({"share": True}, True, False),
        ({"ngrok": "token"}, True, False), ({"server_name": "192.168.1.2"}, True, False),
        ({"server_name": "127.0.0.1"}, False, False), ({"server_name": "gpu.example"}, True, False),
        ({"listen": True, "gradio_auth": "a:b"}, False, True), ({"listen": True, "gradio_auth_path": "f"}, False, True),
        ({"listen": True, "api_auth": "a:b"}, True, True), ({"api_auth": "a:b:c,d:e"}, False, True),
    ],
)  # fmt: skip
def test_what_the_webuis_options_say(
    shared: SimpleNamespace, options: dict[str, Any], closed: bool, guarded: bool
) -> None:
    vars(shared.cmd_opts).update(options)
    assert (settings.access().closed, settings.access().guarded) == (closed, guarded)
    shared.opts.data[settings.OPEN] = True
    assert not settings.access().closed


def test_names_that_it_is_reached_by(shared: SimpleNamespace) -> None:
    shared.demo = SimpleNamespace(share_url="https://abc.gradio.live")
    shared.opts.data[settings.HOSTS] = "ai.example.com, http://nas.lan:8080/"
    vars(shared.cmd_opts).update(server_name="gpu.example", cors_allow_origins="*,https://front.example")
    assert settings.access().hosts == {
        "abc.gradio.live", "ai.example.com", "nas.lan:8080", "gpu.example", "front.example",
    }  # fmt: skip
    assert read_hosts(" , ") == read_hosts("http://[") == frozenset()


def test_users_with_colons_in_their_passwords(shared: SimpleNamespace) -> None:
    shared.cmd_opts.api_auth = "ann:pass:word,broken,bob:"
    assert settings.access().users == {"ann": "pass:word", "bob": ""}


def test_strangers_cant_let_themselves_in(shared: SimpleNamespace) -> None:
    settings.add_settings()
    for key in (settings.OPEN, settings.HOSTS):
        row = shared.opts.rows[key]
        assert row.restrict_api
        row.onchange()
        shared.cmd_opts.listen = True
        with pytest.raises(LoraTrainerError, match="gradio-auth"):
            row.onchange()
        shared.cmd_opts.gradio_auth = "a:b"
        row.onchange()
        shared.cmd_opts.listen = shared.cmd_opts.gradio_auth = None
    assert shared.opts.rows[settings.OPEN].default is False


@pytest.mark.parametrize("name", ["", "localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_addresses_of_this_machine_only(name: str) -> None:
    assert is_loopback(name)
    assert not is_loopback("0.0.0.0") and not is_loopback("::") and not is_loopback("nas")


def test_the_page_on_its_own_isnt_opened_to_others_by_accident(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ui", "--host", "0.0.0.0"]) == 2
    assert "--without-login" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("access", "headers", "told"),
    [
        (Access(), {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860"}, None),
        (Access(), {"host": "127.0.0.1:7860", "origin": "http://evil.example"}, "evil.example"),
        (Access(), {"host": "rebound.example:7860", "origin": "http://rebound.example:7860"}, "rebound.example"),
        (Access(), {"host": "127.0.0.1:7860", "sec-fetch-site": "cross-site"}, "other web pages"),
        (Access(exposed=True), {"host": "192.168.1.20:7860"}, "--gradio-auth"),
        (Access(exposed=True, open=True), {"host": "192.168.1.20:7860"}, None),
    ],
)
def test_the_tabs_buttons_ask_who_presses(access: Access, headers: dict[str, str], told: str | None) -> None:
    """gradio's own addresses take a POST from anywhere; its handler is where it can be refused."""
    pytest.importorskip("gradio", reason="needs gradio; make test-webui-pins has it")
    from lora_trainer.ui.binding import Form

    pressed: list[Any] = []

    def action(desk: Any, page: Any) -> Answer:
        pressed.append(page)
        return Answer({"message": ""})

    desk = SimpleNamespace(page=dict)
    handle = Form(desk, webui=False, access=lambda: access)._handler(action, [], ["message"])  # type: ignore[arg-type]
    request = SimpleNamespace(request=SimpleNamespace(headers=headers))
    update = asyncio.run(handle(request))
    if told is None:
        assert pressed
    else:
        assert not pressed and told in update["value"]
