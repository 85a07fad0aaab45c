"""Text for pictures with every Pillow from 9.5 on, whether or not it brings a scalable font."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

FONT_FILES = (
    "DejaVuSans.ttf",
    "Arial.ttf",
    "arial.ttf",
    "Helvetica.ttc",
    "LiberationSans-Regular.ttf",
    "Roboto-Regular.ttf",
)


@lru_cache(maxsize=16)
def scalable_font(size: int) -> FreeTypeFont | None:
    """A font of ``size`` pixels: one of the system's, else the one in Pillow 10.1 and later, else None."""
    for name in FONT_FILES:
        font = _system_font(name, size)
        if font is not None:
            return font
    try:
        own: Any = ImageFont.load_default(size)  # Pillow before 10.1 takes no size
    except TypeError:
        return None
    return own if hasattr(own, "path") else None  # without FreeType it is the bitmap font after all


def _system_font(name: str, size: int) -> FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, size)
    except (OSError, ImportError):  # not on this system, or a Pillow without FreeType
        return None


class Lettering:
    """Measures, wraps and renders text of one size (pixels of line height, about)."""

    def __init__(self, size: int) -> None:
        self.font = scalable_font(size)
        self.line_height = round(size * 1.35)
        self._fallback: Any = ImageFont.load_default() if self.font is None else None
        self._scale = 1.0
        if self.font is None:  # the fixed bitmap font, 11 pixels high, enlarged
            self._scale = max(1.0, size / 11)

    def width(self, text: str) -> int:
        """Width of one line in pixels."""
        if self.font is not None:
            return round(self.font.getlength(text))
        return round(self._fallback.getlength(_latin(text)) * self._scale)

    def wrap(self, text: str, width: int, most_lines: int = 0) -> list[str]:
        """Break at spaces, and inside words that are too long, into lines of at most ``width`` pixels.

        With ``most_lines`` the rest is cut and the last line ends in an ellipsis.
        """
        lines: list[str] = []
        line = ""
        for word in text.split():
            candidate = f"{line} {word}".strip()
            if self.width(candidate) <= width:
                line = candidate
                continue
            if line:
                lines.append(line)
            while self.width(word) > width and len(word) > 1:
                fit = next((n for n in range(len(word) - 1, 1, -1) if self.width(word[:n]) <= width), 1)
                lines.append(word[:fit])
                word = word[fit:]
            line = word
        lines.append(line)
        if most_lines and len(lines) > most_lines:
            last = lines[most_lines - 1]
            while last and self.width(last + "…") > width:
                last = last[:-1]
            lines = [*lines[: most_lines - 1], last + "…"]
        return lines

    def draw(self, canvas: Image.Image, left: int, top: int, text: str, colour: tuple[int, int, int]) -> None:
        """Write one line with its upper left corner at (left, top)."""
        if not text:
            return
        if self.font is not None:
            ImageDraw.Draw(canvas).text((left, top), text, font=self.font, fill=colour)
            return
        text = _latin(text)
        small = Image.new("L", (int(self._fallback.getlength(text)) + 2, 14), 0)
        ImageDraw.Draw(small).text((0, 1), text, font=self._fallback, fill=255)
        size = (round(small.width * self._scale), round(small.height * self._scale))
        canvas.paste(Image.new("RGB", size, colour), (left, top), small.resize(size, Image.Resampling.BICUBIC))


def _latin(text: str) -> str:
    """What the bitmap font can draw; anything else becomes a question mark instead of an exception."""
    return text.replace("…", "...").encode("latin-1", "replace").decode("latin-1")
