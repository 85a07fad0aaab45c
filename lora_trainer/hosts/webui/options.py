"""The WebUI's own settings."""

from __future__ import annotations

from typing import Any

from modules import shared


def setting(name: str, usual: Any) -> Any:
    """What is set; where nobody has set it, this WebUI's own default, and ``usual`` in one that doesn't know it.

    The defaults differ (clip skip is 2 in Neo), and what was never changed is in no settings file.
    """
    row = getattr(shared.opts, "data_labels", {}).get(name)
    return shared.opts.data.get(name, usual if row is None else row.default)
