"""What the page's inputs hold, as far as the server was told: an event brings only what it is about."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from lora_trainer.config import OPTIONS
from lora_trainer.ui.forms import Page


class Draft:
    """The settings of the next run. All browser tabs look at this one; the newest change of each input counts."""

    def __init__(self, first: Callable[[], Page]) -> None:
        """Args:
        first: the settings before the page told any, such as those of last time.
        """
        self._first = first
        self._page: Page | None = None
        self._lock = threading.Lock()

    def page(self, sent: Mapping[str, Any] | None = None) -> Page:
        """The whole, after taking in what an event sent: values and options by name."""
        first = self._first() if self._page is None else None  # asks the host: not while others wait
        with self._lock:
            if self._page is None:
                assert first is not None
                self._page = first
            for name, value in (sent or {}).items():
                (self._page.options if name in OPTIONS else self._page.values)[name] = value
            return Page(dict(self._page.values), dict(self._page.options))

    def put(self, page: Page) -> None:
        """The page was filled anew."""
        with self._lock:
            self._page = Page(dict(page.values), dict(page.options))
