"""The photographs that the cases are made of: test pictures that come with scikit-image, scikit-learn and Pillow.

Pillow's are in its source archive only. What isn't a photograph, or is one with the very flaw that a check looks for
(a motion-blurred clock, a framed print), isn't taken.
"""

from __future__ import annotations

import io
import tarfile
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageOps

SKIMAGE = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png",
    "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
SKLEARN = ("china.jpg", "flower.jpg")
PILLOW = (
    "flower.jpg", "flower2.jpg", "frozenpond.mpo", "fujifilm.mpo", "sugarshack.mpo", "iptc.jpg",
    "exif_gps_typeerror.jpg", "junk_jpeg_header.jpg", "xmp_test.jpg", "icc_profile_big.jpg", "hopper_256x256.ico",
    "xmp_tags_orientation.png", "tv.rgb",
)  # fmt: skip
LARGEST = 1400  # px of the longer side


def photographs(archive: Path | None) -> dict[str, Image.Image]:
    """Every photograph by its name; those of Pillow where its source archive is given."""
    found = {f"skimage/{name}": _read(_folder("skimage") / "data" / name) for name in SKIMAGE}
    found |= {f"sklearn/{name}": _read(_folder("sklearn") / "datasets" / "images" / name) for name in SKLEARN}
    if archive is not None:
        with tarfile.open(archive) as files:
            root = files.getnames()[0].partition("/")[0]
            for name in PILLOW:
                member = files.extractfile(f"{root}/Tests/images/{name}")
                assert member is not None, name
                found[f"pillow/{name}"] = _read(io.BytesIO(member.read()))
    return found


def halves(names: list[str]) -> tuple[list[str], list[str]]:
    """To choose the thresholds on, and to report on: no photograph is in both."""
    return sorted(names)[::2], sorted(names)[1::2]


def _folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec and spec.origin, f"the tests' set-up installs {package}"
    return Path(spec.origin).parent


def _read(source: Path | io.BytesIO) -> Image.Image:
    with Image.open(source) as image:
        colour = image.convert("RGB")
    return ImageOps.contain(colour, (LARGEST, LARGEST)) if max(colour.size) > LARGEST else colour
