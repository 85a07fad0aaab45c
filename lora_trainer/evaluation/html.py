"""Pieces of HTML that the report is made of; all text is escaped here."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from lora_trainer.evaluation.prompts import strength_text

THUMBNAIL = 384  # pixels of the longer side inside the page
PIXELS = 160  # smaller pictures are kept as they are and enlarged by the browser without smoothing

COPY_SCRIPT = """
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.addEventListener("click", async () => {
    const text = button.dataset.copy;
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // file:// pages have no clipboard in some browsers
      const area = document.body.appendChild(document.createElement("textarea"));
      area.value = text; area.select(); document.execCommand("copy"); area.remove();
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
"""

_HASH = base64.b64encode(hashlib.sha256(COPY_SCRIPT.encode()).digest()).decode()
POLICY = (  # of the page: no script but the one above, nothing from elsewhere
    f"default-src 'none'; script-src 'sha256-{_HASH}'; style-src 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'"
)


def table(values: dict[str, Any]) -> str:
    """Names and values in two columns."""
    rows = "".join(
        f"<tr><th scope='row'>{escape(str(k))}</th><td>{escape(str(v))}</td></tr>" for k, v in values.items()
    )
    return f'<div class="scroll" tabindex="0"><table class="plain">{rows}</table></div>'


def bullets(items: Sequence[str]) -> str:
    """A list; nothing for no items."""
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>" if items else ""


def copyable(text: str) -> str:
    """A prompt with a button that copies it."""
    shown = escape(text)
    return f'<div class="prompt"><code>{shown}</code><button type="button" data-copy="{shown}">Copy</button></div>'


def picture(row: dict[str, Any], folder: Path) -> str:
    """A row of report.json's images as a picture inside the page that links to the file."""
    with Image.open(folder / row["path"]) as image:
        size, small = image.size, image.convert("RGB")
    tiny = max(size) <= PIXELS
    if not tiny:
        small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if tiny:
        small.save(buffer, format="PNG", optimize=True)
    else:
        small.save(buffer, format="JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode()
    kind = "png" if tiny else "jpeg"
    alt = escape(f"{row['prompt']}, seed {row['seed']}, strength {strength_text(row['strength'])}")
    return (
        f'<a href="{escape(row["path"])}"><img src="data:image/{kind};base64,{data}"'
        f' width="{size[0]}" height="{size[1]}"{" class=pixels" if tiny else ""}'
        f' alt="{alt}" title="{alt}" loading="lazy"></a>'
    )
