"""Two steps of training on the smallest host, and all that can be seen of them from outside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors import safe_open
from support.tiny_host import TinyHost, TinyModel
from torch import Tensor

from lora_trainer.config import RunConfig
from lora_trainer.hosts.base import Conditioning
from lora_trainer.training.events import Event, Learned, Sampled, StepDone
from lora_trainer.training.request import RunRequest
from lora_trainer.training.run import train

BASE: dict[str, Any] = {
    "resolution": 64, "bucket_reso_steps": 16, "train_batch_size": 2, "max_train_epochs": 2, "network_dim": 4,
    "network_alpha": 4, "optimizer_type": "SGD", "learning_rate": 0.5, "text_encoder_lr": 0, "seed": 7,
    "max_grad_norm": 0, "save_every_n_epochs": 0, "save_precision": "float", "cache_text_encoder_outputs": False,
    "measure_at_saves": False,
}  # fmt: skip
CAPTIONS = (
    "zork, calm ||| big, red;;;lid, {left|right}, far\nzork, second line",
    "zork, loud ||| tall, blue;;;cap, {up|down}, near\nzork, other line",
)

WORD = [250, 251]  # the tokens of "zork" here


def small_unet() -> UNet2DConditionModel:
    """A UNet with one block of every kind that a LoRA adapts."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1, cross_attention_dim=16,
        attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval().requires_grad_(False)  # fmt: skip


@dataclass
class Call:
    """One prediction of the UNet."""

    noisy: Tensor
    timesteps: list[int]
    context: Tensor
    crops: list[tuple[int, int]]
    predicted: Tensor
    saved_bytes: int = 0  # kept for the backward pass, by the UNet alone


@dataclass
class WatchedModel(TinyModel):
    """Writes down what it is asked; reads clip_skip and the captions' length as a real text encoder does."""

    unet: torch.nn.Module = field(default_factory=small_unet)
    calls: list[Call] = field(default_factory=list)
    batches_encoded: list[int] = field(default_factory=list)

    def encode_images(self, pixels: Tensor, tile: int = 0) -> tuple[Tensor, Tensor]:
        self.batches_encoded.append(len(pixels))
        return super().encode_images(pixels)

    def encode_captions(self, captions: Sequence[str], max_token_length: int, clip_skip: int) -> Conditioning:
        self.captions_encoded += captions
        digests = [hashlib.sha256(text.encode()).digest()[: 6 * max_token_length // 75] for text in captions]
        words = [WORD if "zork" in text else [1] * len(WORD) for text in captions]
        rows = torch.tensor([[0, *word, *digest, 1] for word, digest in zip(words, digests, strict=True)])
        made = self.text(input_ids=rows, output_hidden_states=True)
        return Conditioning(made.last_hidden_state if clip_skip == 1 else made.hidden_states[-clip_skip])

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, sizes: Any) -> Tensor:
        if not torch.is_grad_enabled():  # the base model, to compare with
            return super().predict(noisy, timesteps, conditioning, sizes)
        saved: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            saved.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            predicted = super().predict(noisy, timesteps, conditioning, sizes)
        crops = [size.crop for size in sizes]
        self.calls.append(Call(
            noisy.clone(), timesteps.tolist(), conditioning.context.detach().clone(), crops,
            predicted.detach().clone(), sum(saved),
        ))  # fmt: skip
        return predicted


@dataclass
class Outcome:
    """What a run did."""

    world: World
    model: WatchedModel
    events: list[Event]
    folder: Path  # of this run alone
    states_seen: int  # how often a resume state was there when a step ended

    @property
    def files(self) -> list[str]:
        """The LoRA files at the end."""
        return sorted(path.name for path in (self.folder / "loras").iterdir())

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines of the log."""
        return [json.loads(line) for line in (self.folder / "out/zork/log.jsonl").read_text().splitlines()]

    @property
    def rates(self) -> list[dict[str, float]]:
        """The rates of every step as the log has them."""
        return [line["lr"] for line in self.log]

    @property
    def pictures(self) -> list[tuple[int, str]]:
        """Step and prompt of the samples."""
        return [(event.step, event.prompt) for event in self.events if isinstance(event, Sampled)]

    def weights(self, name: str = "zork") -> dict[str, Tensor]:
        """A LoRA file's tensors."""
        with safe_open(self.folder / f"loras/{name}.safetensors", "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118

    def metadata(self) -> dict[str, str]:
        """The final file's metadata."""
        with safe_open(self.folder / "loras/zork.safetensors", "pt") as file:
            return dict(file.metadata())

    def facts(self) -> dict[str, Any]:
        """run.json."""
        return dict(json.loads((self.folder / "out/zork/run.json").read_text()))

    def aspects(self) -> dict[str, Any]:
        """What is compared, by name; see :data:`ASPECTS`."""
        calls, log, weights = self.model.calls, self.log, self.weights()
        return {
            "batches": [list(call.noisy.shape) for call in calls],
            "noisy": [calls[0].noisy],
            "timesteps": [call.timesteps for call in calls],
            "texts": self.model.captions_encoded,
            "context": [calls[0].context],
            "loss": [torch.tensor(log[0]["loss"])],
            "gradient": [torch.tensor(log[0]["grad_norm"])],
            "steps": len(log),
            "rates": [torch.tensor(list(line["lr"].values())) for line in log],
            "groups": list(log[0]["lr"]),
            "modules": {key: list(tensor.shape) for key, tensor in weights.items()},
            "alphas": [tensor for key, tensor in weights.items() if key.endswith(".alpha")],
            "weights": [tensor.float() for key, tensor in weights.items() if not key.endswith(".alpha")],
            "dtype": sorted({str(tensor.dtype) for tensor in weights.values()}),
            "files": self.files,
            "pictures": self.model.generated,
            "encoding": (self.model.batches_encoded, len(self.model.captions_encoded), self.model.kept),
            "memory": calls[0].saved_bytes,
            "states": self.states_seen,
            "learned": [event.step for event in self.events if isinstance(event, Learned)],
        }

    def changes(self, other: Outcome) -> set[str]:
        """The aspects in which another run differs by more than rounding."""
        mine, theirs = self.aspects(), other.aspects()
        return {name for name in mine if _differ(mine[name], theirs[name])}


# An option that changes the first step's input changes all that follows from it, and so on down.
UPDATE = {"weights"}
GRADIENT = {"gradient"} | UPDATE
LOSS = {"loss"} | GRADIENT
INPUT = {"noisy"} | LOSS
SHAPE = {"batches", "memory"} | INPUT
TEXT = {"texts", "context"} | LOSS


def _differ(one: Any, two: Any) -> bool:
    if isinstance(one, list) and one and isinstance(one[0], Tensor):
        if [tensor.shape for tensor in one] != [tensor.shape for tensor in two]:
            return True
        return not all(
            torch.allclose(a.float(), b.float(), rtol=2e-5, atol=1e-7) for a, b in zip(one, two, strict=True)
        )
    return bool(one != two)


Check = Callable[[Outcome, Outcome], None]


@dataclass(frozen=True)
class Case:
    """An option's value, what it changes beside ``given``, and under what it has no effect."""

    value: Any
    changes: set[str]
    given: Mapping[str, Any] = field(default_factory=dict)
    check: Check | None = None  # of the run without and the run with the value
    idle: Sequence[Mapping[str, Any]] = ()
    maybe: frozenset[str] = frozenset()  # what changes by so little that it may pass for rounding


class World:
    """A dataset on disk, and every run on it that was asked for, made once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._made: dict[str, Outcome] = {}
        for name, color in (("data/1_zork", 40), ("reg/1_thing", 170)):
            folder = root / name
            folder.mkdir(parents=True)
            for index, caption in enumerate(CAPTIONS):
                _picture(color + 20 * index).save(folder / f"{index}.png")
                mask = Image.new("L", (128, 96))
                mask.paste(255, (0, 0, 64, 96))
                if name.startswith("data"):
                    mask.save(folder / f"{index}-masklabel.png")
                (folder / f"{index}.txt").write_text(caption if color == 40 else f"a thing, {index}")
                (folder / f"{index}.cap").write_text(f"other words {index}")
        for rank in (4, 2):
            made = self.run(network_dim=rank, seed=11)
            (made.folder / "loras/zork.safetensors").rename(root / f"rank{rank}.safetensors")
        self._made.clear()

    def run(self, **options: Any) -> Outcome:
        """The outcome of a run with these options changed; text values may name files of the world as {world}/…."""
        key = repr(sorted(options.items()))
        if key not in self._made:
            self._made[key] = self._run(self.root / f"run{len(list(self.root.iterdir()))}", options)
        return self._made[key]

    def _run(self, folder: Path, options: dict[str, Any]) -> Outcome:
        values = {
            name: value.replace("{world}", str(self.root)) if isinstance(value, str) else value
            for name, value in {**BASE, **options}.items()
        }
        host = TinyHost(folder / "loras", WatchedModel())
        request = RunRequest("zork", self.root / "data", RunConfig().replace(**values), folder / "out")
        events, states = [], 0
        with patch("lora_trainer.network.embedding.tokenise", return_value=WORD):  # the real ones aren't so few
            for event in train(host, request):
                events.append(event)
                if isinstance(event, StepDone):
                    states += any(path.is_file() for path in (folder / "out/zork").glob("state/*"))
        assert isinstance(host.model, WatchedModel)
        return Outcome(self, host.model, events, folder, states)


def _picture(color: int) -> Image.Image:
    """128x96 px, a gradient with a bright corner; the right half is transparent."""
    red = Image.linear_gradient("L").resize((128, 96))
    green = Image.new("L", (128, 96), color)
    blue = Image.new("L", (128, 96), 255 - color)
    blue.paste(250, (0, 0, 30, 30))
    alpha = Image.new("L", (128, 96), 255)
    alpha.paste(0, (64, 0, 128, 96))
    return Image.merge("RGBA", (red, green, blue, alpha))
