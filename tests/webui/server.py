"""Starts a real WebUI in a temporary data folder, with the extension in it, and talks to it."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

ROOT = Path(__file__).resolve().parents[2]
PROBE = Path(__file__).parent / "probe"
PATIENCE = float(os.environ.get("WEBUI_PATIENCE", "600"))  # seconds for a start or a run; a busy machine is slow
RUNNING = ("preparing", "training", "paused", "testing", "captioning", "generating")


@dataclass(frozen=True)
class Kind:
    """What differs between WebUIs for whoever drives them.

    Args:
        arguments: for a processor alone, without checks.
        tiny: whether it loads checkpoints of any width; the others know them by their shapes.
        lazy: whether it loads the model at the first picture only.
        version: what its settings file has to say, or it stops at the start.
    """

    name: str
    arguments: str
    tiny: bool = False
    lazy: bool = True
    version: str | None = None


def remarks(status: dict[str, Any]) -> list[str]:
    """What a run had to say, beside what the check thinks of so few images."""
    return [text for text in status["notices"] if not text.startswith("Check of the images: ")]


def same(first: Image.Image, second: Image.Image) -> bool:
    """Whether two pictures are equal in every pixel."""
    return first.size == second.size and ImageChops.difference(first, second).getbbox() is None


def tensors(path: Path) -> bytes:
    """The numbers of a safetensors file, without the header that holds names and times."""
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


def kind_of(root: Path) -> Kind:
    """Which WebUI is in a folder: AUTOMATIC1111's, or one of the forks with a backend of their own."""
    if not (root / "modules_forge").is_dir():
        arguments = "--use-cpu all --no-half --skip-torch-cuda-test --no-download-sd-model"
        return Kind("a1111", arguments, tiny=True, lazy=False)
    if (root / "ldm_patched").is_dir():
        return Kind("reforge", "--always-cpu --skip-torch-cuda-test --skip-version-check --no-download-sd-model")
    version = re.search(r'^VERSION_UID\b.* = "(\w+)"', (root / "modules" / "launch_utils.py").read_text("utf-8"), re.M)
    if version:
        return Kind("neo", "--cpu --skip-version-check", version=version[1])
    return Kind("forge", "--always-cpu --skip-torch-cuda-test --skip-version-check")


class WebUI:
    """One WebUI process.

    Args:
        root: the WebUI's folder.
        data: its data folder; holds nothing of the user's.
        arguments: more command line arguments.
    """

    def __init__(self, root: Path, data: Path, *arguments: str) -> None:
        self.root, self.data, self.arguments = root, data, arguments
        self.kind = kind_of(root)
        self.port = free_port()
        self.log_file = data / "webui.log"
        self.auth: str | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def python(self) -> str:
        """The WebUI's own Python."""
        return webui_python(self.root)

    def __enter__(self) -> WebUI:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def install(self, checkpoints: list[Path], architectures: Path | None = None) -> None:
        """Fill the data folder: checkpoints with their configs, the extension, the probe."""
        models = self.data / "models" / "Stable-diffusion"
        for folder in (models, self.data / "models" / "Lora", self.data / "extensions", self.data / "embeddings"):
            folder.mkdir(parents=True, exist_ok=True)
        for checkpoint in checkpoints:
            for file in (checkpoint, checkpoint.with_suffix(".yaml")):
                if file.is_file() and not (models / file.name).exists():
                    put = shutil.copyfile if self.kind.tiny else os.symlink  # two gigabytes each
                    put(file, models / file.name)
        (self.data / "extensions" / "lora-trainer").symlink_to(ROOT)
        probe = shutil.copytree(PROBE, self.data / "extensions" / "probe")
        if architectures is not None and self.kind.tiny:
            shutil.copytree(architectures, probe / "architectures")
        options = {"show_progress_type": "Approx cheap", "sd_checkpoint_hash": "", "disable_all_extensions": "none"}
        if self.kind.version:
            options["VERSION_UID"] = self.kind.version
        if checkpoints:
            options["sd_model_checkpoint"] = checkpoints[0].name
        (self.data / "config.json").write_text(json.dumps(options))
        if self.kind.name == "neo":  # at its very first start, before it has this file, nothing can be sent to a prompt
            (self.data / "ui-config.json").write_text(json.dumps({"txt2img/Prompt/value": ""}))

    def start(self) -> None:
        """Start, and wait for page and model: an earlier request can kill A1111."""
        environment = {
            **os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False",
            "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": os.environ.get("WEBUI_THREADS", "1"),
        }  # fmt: skip
        environment.pop("PYTHONPATH", None)
        given = os.environ.get("WEBUI_ARGS", self.kind.arguments).split()
        command = [
            self.python, "launch.py", "--skip-prepare-environment", "--api", "--port", str(self.port), "--data-dir",
            str(self.data), *given, *self.arguments,
        ]  # fmt: skip
        if self.kind.name != "a1111":  # with --data-dir, the forks refuse a browser their own scripts
            command += ["--gradio-allowed-path", str(self.root)]
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self.root, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.wait_for(lambda: "Startup time" in self.log(), "the page")
        if self.kind.lazy:
            self.picture("a picture loads the model")
        self.wait_for(lambda: re.search(r"Model .*loaded in", self.log()), "the model")
        time.sleep(0.5)

    def stop(self) -> None:
        """End this process."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(20)

    def kill(self) -> None:
        """As a crash does it."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(20)

    def log(self) -> str:
        """What it has printed."""
        return self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""

    def wait_for(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
        """Wait until ``condition`` gives something true; fails with the log's end."""
        end = time.monotonic() + seconds
        while not (value := condition()):
            dead = self._process is not None and self._process.poll() is not None
            assert not dead and time.monotonic() < end, f"waiting for {what}; the log ends:\n{self.log()[-3000:]}"
            time.sleep(0.1)
        return value

    def call(self, method: str, path: str, body: Any = None, timeout: float = PATIENCE) -> tuple[int, Any]:
        """A request; the status code and the JSON (or bytes) of the answer."""
        headers = {"Content-Type": "application/json"}
        if self.auth:
            headers["Authorization"] = "Basic " + base64.b64encode(self.auth.encode()).decode()
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, _read(answer)
        except urllib.error.HTTPError as error:
            return error.code, _read(error)

    def get(self, path: str, timeout: float = PATIENCE) -> Any:
        """GET that has to succeed."""
        code, answer = self.call("GET", path, timeout=timeout)
        assert code == 200, (code, answer)
        return answer

    def post(self, path: str, body: Any = None, timeout: float = PATIENCE) -> Any:
        """POST that has to succeed."""
        code, answer = self.call("POST", path, {} if body is None else body, timeout=timeout)
        assert code == 200, (code, answer)
        return answer

    def status(self) -> dict[str, Any]:
        """The job's status."""
        return self.get("/lora-trainer/status")

    def train(self, name: str, dataset: Path, wait: bool = True, **values: Any) -> dict[str, Any]:
        """Begin a small run, and wait for its end."""
        config = {**SMALL, **values.pop("config", {})}
        body = {"name": name, "dataset": str(dataset), "config": config, "test": False, "overwrite": True, **values}
        self.post("/lora-trainer/train", body)
        return self.finished() if wait else self.status()

    def finished(self) -> dict[str, Any]:
        """Wait for the end of the job."""
        return self.wait_for(lambda: (s := self.status())["state"] not in RUNNING and s, "the end of the job")

    def reached(self, step: int) -> dict[str, Any]:
        """Wait for a step of the run."""
        return self.wait_for(
            lambda: ((s := self.status())["step"] >= step or s["state"] not in RUNNING) and s, f"step {step}"
        )

    def picture(self, prompt: str, timeout: float = PATIENCE, **values: Any) -> Image.Image:
        """A picture by the WebUI's own API."""
        answer = self.post("/sdapi/v1/txt2img", {**PICTURE, "prompt": prompt, **values}, timeout)
        return Image.open(io.BytesIO(base64.b64decode(answer["images"][0]))).convert("RGB")

    def probe(self, question: str, **values: Any) -> Any:
        """Ask the test's own extension, which runs inside the WebUI."""
        return self.post(f"/probe/{question}", values)


SMALL = {
    "resolution": 64, "max_train_steps": 6, "network_dim": 4, "network_alpha": 4, "seed": 7, "learning_rate": 1e-3,
    "save_every_n_epochs": 0, "min_bucket_reso": 64, "lr_scheduler": "constant",
}  # fmt: skip
PICTURE = {
    "steps": 2, "width": 64, "height": 64, "seed": 11, "sampler_name": "Euler", "cfg_scale": 3, "batch_size": 1,
    "do_not_save_samples": True, "do_not_save_grid": True,
}  # fmt: skip


def webui_python(root: Path) -> str:
    """The Python of a WebUI: ``WEBUI_PYTHON``, else its venv, else the one of the tests."""
    own = root / "venv" / "bin" / "python"
    return os.environ.get("WEBUI_PYTHON") or (str(own) if own.is_file() else sys.executable)


def free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _read(answer: Any) -> Any:
    content = answer.read()
    try:
        return json.loads(content)
    except ValueError:
        return content
