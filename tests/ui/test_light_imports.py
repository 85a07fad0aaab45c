"""What the WebUI imports of the extension at its start is light: the heavy parts come with the first job."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "diffusers", "accelerate", "bitsandbytes", "numpy", "matplotlib")


@pytest.mark.parametrize("module", ["lora_trainer", "lora_trainer.ui.job", "lora_trainer.ui.settings", "install"])
def test_nothing_heavy_is_imported(module: str) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {module}; "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_entry_script_is_short() -> None:
    lines = (ROOT / "scripts" / "lora_trainer_tab.py").read_text().splitlines()
    assert len(lines) <= 70
