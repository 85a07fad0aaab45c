"""Who may use the tab and its routes: logins, host names, other web pages. Knows no web framework and no WebUI.

What each check is against:

- a web page of somebody else that the user has open: ``Sec-Fetch-Site`` where the browser sends it (https and this
  machine), ``Origin`` elsewhere, and the page's key, which no other page can read;
- a host name that somebody points at this machine (DNS rebinding), whose page would be of the same origin as ours: only
  names that are known to be ours are answered. An IP address can't be pointed anywhere. With a login in front of the
  page the name doesn't matter, because such a page has nobody's login;
- strangers, where the server listens to other machines and asks nobody for a login: closed, unless the settings say
  otherwise.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from urllib.parse import urlsplit

from lora_trainer.errors import LoraTrainerError, quoted

PAGE_KEY = secrets.token_urlsafe(18)  # only our own page can read it; new with every process
LOCAL_ENDINGS = ("", ".local", ".lan", ".home", ".home.arpa", ".internal", ".localdomain", ".fritz.box")
DEFAULT_PORTS = {"http": 80, "https": 443}
CLOSED = (
    "Train LoRA is switched off: other machines can reach this WebUI without a login, and anyone who does could train "
    "and read folders. Start the WebUI with --gradio-auth NAME:PASSWORD, or set lora_trainer_open to true in its "
    "config.json if anyone who can reach it may train."
)


class RefusedError(LoraTrainerError):
    """A request that isn't answered; ``status`` is the HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Access:
    """What the server knows of its doors."""

    users: Mapping[str, str] = field(default_factory=dict)  # of the API: names and passwords
    login: bool = False  # the page itself asks for a login
    exposed: bool = False  # other machines reach the server
    open: bool = False  # the owner says that everybody who reaches it may train
    hosts: frozenset[str] = frozenset()  # more names that the server is reached by, in lower case, some with a port

    @property
    def closed(self) -> bool:
        """Whether nobody but the API's users may use it."""
        return self.exposed and not self.login and not self.open

    @property
    def guarded(self) -> bool:
        """Whether every request needs a password or the page's key."""
        return self.login or bool(self.users)

    def knows_user(self, authorization: str) -> bool:
        """Whether a header ``Authorization`` (HTTP Basic) names a user of the API with the right password."""
        scheme, _, coded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            user, _, password = base64.b64decode(coded, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return False
        return secrets.compare_digest(password.encode(), self.users.get(user, "").encode()) and user in self.users


def is_page_key(key: str | None) -> bool:
    """Whether it is the key of our own page."""
    return key is not None and secrets.compare_digest(key.encode("utf-8", "surrogateescape"), PAGE_KEY.encode())


def check_page(access: Access, headers: Mapping[str, str], *, reads: bool = False) -> None:
    """Refuse what another web page, a borrowed host name or a stranger sends.

    Args:
        headers: of the request; names in any case.
        reads: whether it changes nothing (GET).

    Raises:
        RefusedError: in one sentence.
    """
    user = access.knows_user(headers.get("authorization", ""))
    if access.closed and not user:
        raise RefusedError(403, CLOSED)
    site = headers.get("sec-fetch-site", "same-origin")
    follows_link = reads and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    if site not in ("same-origin", "none") and not follows_link:
        raise RefusedError(403, "This address answers only its own page and programs, not other web pages.")
    host = headers.get("host", "")
    if not (access.login or user or _is_ours(access, host)):
        name = _split(host)[0] or host
        raise RefusedError(
            403,
            f"{quoted(name)} isn't a known name of this server; add it under Settings → Train LoRA.",
        )
    origin = headers.get("origin")
    if origin is not None and not _is_own_origin(access, origin, host):
        raise RefusedError(
            403,
            f"This address doesn't answer the web page {quoted(origin)}. If that is this server's own page behind a "
            "proxy, add its host under Settings → Train LoRA.",
        )


def _is_ours(access: Access, host: str) -> bool:
    name, port = _split(host)
    if name == "localhost" or name.endswith(".localhost") or name in own_names() | access.hosts:
        return True
    if f"{name}:{port}" in access.hosts:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_own_origin(access: Access, origin: str, host: str) -> bool:
    """Same name and port as the request was sent to, or a name from the settings."""
    scheme, _, rest = origin.lower().partition("://")
    name, port = _split(rest)
    if scheme not in DEFAULT_PORTS or not name:
        return False  # "null" of a sandbox or a file
    port = port or DEFAULT_PORTS[scheme]
    host_name, host_port = _split(host)
    if name == host_name and port == (host_port or DEFAULT_PORTS[scheme]):
        return True
    return f"{name}:{port}" in access.hosts or (name in access.hosts and port == DEFAULT_PORTS[scheme])


def _split(host: str) -> tuple[str, int | None]:
    """Name and port of ``name:port``; the name is empty where that can't be read."""
    try:
        parts = urlsplit(f"//{host}")
        return (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return "", None


@cache
def own_names() -> frozenset[str]:
    """This machine's name, as its own network may call it."""
    name = socket.gethostname().lower()
    first = name.partition(".")[0]
    return frozenset({name, *(first + ending for ending in LOCAL_ENDINGS)} - {""})


def read_hosts(text: str) -> frozenset[str]:
    """Names (or whole addresses) with commas or spaces between them."""
    found = set()
    for word in text.lower().replace(",", " ").split():
        name, port = _split(word.partition("://")[2] or word)
        found.add(f"{name}:{port}" if port else name)
    return frozenset(found - {""})


def is_loopback(server: str) -> bool:
    """Whether a server with that name or address (empty: the default) is reached from this machine only."""
    try:
        return server in ("", "localhost") or ipaddress.ip_address(server).is_loopback
    except ValueError:
        return False
