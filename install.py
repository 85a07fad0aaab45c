"""Run by the WebUI at every launch, before it starts. Everything that the extension needs, the WebUI has.

Only the 8-bit optimisers need something more: bitsandbytes. It is added where there is an NVIDIA card and it is
missing, in a release that suits the torch that is there and without its dependencies, so that no package of the WebUI
changes. Finds all that out without importing torch, which would cost seconds at every launch.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

RELEASES = (((2, 4), "0.50.2"), ((2, 0), "0.45.5"))  # from which torch on; by the releases' own requirements
WITHOUT = "Train LoRA: everything works without it except the optimiser AdamW8bit."


def suitable(torch_version: str) -> str | None:
    """The bitsandbytes release for a version of torch, or None."""
    numbers = re.match(r"(\d+)\.(\d+)", torch_version)
    found = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    return next((release for least, release in RELEASES if found >= least), None)


def torch_build() -> tuple[str, bool]:
    """The installed torch's version and whether it is built for CUDA; empty if there is none."""
    spec = importlib.util.find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    if file is None or not file.is_file():
        return "", False
    text = file.read_text(encoding="utf-8")
    version = re.search(r"^__version__ = ['\"]([^'\"]+)", text, re.M)
    return (version[1] if version else ""), bool(re.search(r"^cuda\b[^=\n]*= ['\"]", text, re.M))


def wanted() -> str | None:
    """The bitsandbytes release to add, or None if there is nothing to do."""
    if importlib.util.find_spec("bitsandbytes") or not shutil.which("nvidia-smi"):
        return None
    version, cuda = torch_build()
    return suitable(version) if cuda else None


def main() -> None:
    """Add what is missing; a failure is told in one line and never stops the WebUI."""
    try:
        import launch
    except ImportError:
        print("Train LoRA: this script is for a WebUI, which runs it by itself; there is nothing to do here.")
        return
    release = wanted()
    if release is None:
        return
    try:
        launch.run_pip(
            f"install --no-deps --retries 1 --timeout 10 bitsandbytes=={release}",
            f"bitsandbytes {release} for Train LoRA",
        )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()
        print(f"Train LoRA: bitsandbytes {release} can't be installed: {reason[-1] if reason else 'no reason given'}")
        print(WITHOUT)


main()
