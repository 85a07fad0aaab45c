"""PNG files of which Pillow refuses what isn't pixels: their chunks without texts and other notes.

A PNG is a row of chunks. Those whose name begins with a capital letter make the picture; the others are notes on it,
such as the prompt or the whole workflow that a generator wrote, and may be of any size. (PNG specification, section 5.)
"""

from __future__ import annotations

import io
import zlib
from pathlib import Path

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEPT = (b"tRNS", b"eXIf")  # notes that say how the pixels are meant
PROFILE = b"iCCP"
LARGEST_PROFILE = 1 << 20  # bytes unpacked, as much as Pillow takes


def pixels_only(path: Path) -> io.BytesIO | None:
    """The file without the notes; None if it isn't a PNG or has none to leave out.

    Raises:
        OSError: if it can't be read.
    """
    data = path.read_bytes()
    if not data.startswith(SIGNATURE):
        return None
    kept, at = [SIGNATURE], len(SIGNATURE)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")  # length, name, content, checksum
        name, content = data[at + 4 : at + 8], data[at + 8 : end - 4]
        if name[:1].isupper() or name in KEPT or (name == PROFILE and _fits(content)):
            kept.append(data[at:end])
        at = end
    result = b"".join(kept)
    return io.BytesIO(result) if len(result) < len(data) else None


def _fits(content: bytes) -> bool:
    packed = content[content.find(b"\0") + 2 :]
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed, LARGEST_PROFILE)
    except zlib.error:
        return False
    return unpacker.eof
