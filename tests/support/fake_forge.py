"""The parts of Forge's ``backend`` and ``modules`` that the adapter uses, in small, around the real ldm UNet.

Its weights are made in inference mode and its transformer blocks add in place, as Forge's do.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.fake_sd import Model as Parts
from tests.support.fake_webui import WebUI, replaced_packages

OURS = ("lora_trainer.hosts.forge", "lora_trainer.hosts.webui")


class BasicTransformerBlock(nn.Module):
    """A transformer block that writes to its input; it takes over the layers of ldm's."""

    def forward(self, x: Tensor, context: Tensor | None = None, transformer_options: Any = None) -> Tensor:
        x += self.attn1(self.norm1(x))
        x += self.attn2(self.norm2(x), context=context)
        changed = self.ff(self.norm3(x))
        changed += x
        return changed


class Patcher:
    """A part under the memory management; a LoRA is a copy that shares the part."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.load_device, self.backup = model, torch.device("cpu"), {}

    def clone(self) -> Patcher:
        other = Patcher(self.model)
        other.backup = self.backup
        return other


class Engine:
    """A text engine: letters are tokens, a comma is 7."""

    comma_token, id_start, id_end, id_pad = 7, 300, 301, 301
    minimal_clip_skip, final_layer_norm, return_pooled, text_projection = 1, True, False, False
    embedding_key = "clip_l"

    def __init__(self, transformer: nn.Module) -> None:
        self.text_encoder = SimpleNamespace(transformer=transformer)
        self.embeddings = SimpleNamespace(fixes="old")

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        return [[7 if letter == "," else 10 + ord(letter) % 200 for letter in text] for text in texts]


class Transformer(nn.Module):
    """transformers' CLIPTextModel, whichever release has it, and the projection that Neo adds, unfilled."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.text_model, self.config = inner.text_model, inner.config
        width = inner.config.hidden_size
        self.text_projection = nn.Linear(width, width, bias=False, device="meta").to_empty(device="cpu")
        nn.init.constant_(self.text_projection.weight, float("inf"))

    def forward(self, tokens: Tensor, output_hidden_states: bool) -> Any:
        return self.text_model(input_ids=tokens, output_hidden_states=output_hidden_states)


class Vae(nn.Module):
    """Forge's autoencoder, without its decoder."""

    def __init__(self, parts: nn.Module) -> None:
        super().__init__()
        self.encoder, self.quant_conv = parts.encoder, parts.quant_conv

    def process_in(self, latent: Tensor) -> Tensor:
        return (latent - 0.5) * 0.18215


class Model:
    """``shared.sd_model``: an SD 1.x of a million weights."""

    is_sd1, is_sd2, is_sdxl, tiling_enabled = True, False, False, False

    def __init__(self, name: str = "tiny") -> None:
        parts = Parts(name)
        unet = parts.model.diffusion_model
        for module in unet.modules():
            if hasattr(module, "use_checkpoint"):
                module.use_checkpoint = False  # Forge has none of its own
            if type(module).__name__ == "BasicTransformerBlock":
                module.__class__ = BasicTransformerBlock
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            text = Transformer(parts.cond_stage_model.wrapped.transformer)
        self.sd_checkpoint_info, self.model_config = parts.sd_checkpoint_info, SimpleNamespace(ztsnr=False)
        self.text_processing_engine = Engine(text)
        wrapped = nn.Module()
        wrapped.diffusion_model, wrapped.computation_dtype = unet, torch.float32
        wrapped.predictor = SimpleNamespace(
            prediction_type="epsilon", alphas_cumprod=parts.alphas_cumprod_original.float()
        )
        self.roots = (unet, text, Vae(parts.first_stage_model))
        for root in self.roots:
            as_inference(root)
        clip = SimpleNamespace(patcher=Patcher(text), cond_stage_model=text)
        vae = SimpleNamespace(
            patcher=Patcher(self.roots[2]), first_stage_model=self.roots[2], device=torch.device("cpu")
        )
        self.forge_objects_original = Objects(unet=Patcher(wrapped), clip=clip, vae=vae)
        self.forge_objects = self.forge_objects_after_applying_lora = self.forge_objects_original
        self.current_lora_hash = "[]"

    def parameters(self) -> list[nn.Parameter]:
        return [weight for root in self.roots for weight in root.parameters()]


class Objects(SimpleNamespace):
    """Forge's parts of a model."""

    def shallow_copy(self) -> Objects:
        return Objects(**vars(self))


def as_inference(root: nn.Module) -> None:
    """The module's tensors as a load in inference mode leaves them."""
    with torch.inference_mode():
        for module in root.modules():
            for name, weight in list(module._parameters.items()):
                if weight is not None:
                    module._parameters[name] = nn.Parameter(weight.detach().clone(), requires_grad=False)
            for name, buffer in list(module._buffers.items()):
                if buffer is not None:
                    module._buffers[name] = buffer.clone()


class Loaded:
    """An entry in the list of loaded parts."""

    def __init__(self, patcher: Patcher, memory: Memory) -> None:
        self.model, self._memory = patcher, memory

    def model_unload(self) -> None:
        self._memory.log.append(f"unload {type(self.model.model).__name__}")


class Memory(types.ModuleType):
    """``backend.memory_management``: keeps count, and takes a LoRA's change out when the bare part is loaded."""

    def __init__(self) -> None:
        super().__init__("backend.memory_management")
        self.current_loaded_models: list[Loaded] = []
        self.log: list[str] = []

    def load_models_gpu(self, patchers: list[Patcher], memory_required: int = 0, force_full_load: bool = False) -> None:
        assert torch.is_inference_mode_enabled() and force_full_load
        for patcher in patchers:
            for weight in patcher.model.parameters():
                assert weight.is_inference(), "it moves its own tensors, not ours"
            self.current_loaded_models = [
                one for one in self.current_loaded_models if one.model.model is not patcher.model
            ]
            for name, weight in patcher.backup.items():
                holder, leaf = name.rsplit(".", 1)
                setattr(patcher.model.get_submodule(holder), leaf, weight)
            patcher.backup.clear()
            self.current_loaded_models.append(Loaded(patcher, self))

    def soft_empty_cache(self) -> None:
        self.log.append("empty")


class Forge(WebUI):
    """The fakes, and what tests ask of them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.memory = Memory()
        self.applied_lora: list[str] = []
        for name in ("sd_hijack", "sd_unet"):  # Neo has neither
            self.modules.pop(name)
        data = SimpleNamespace(sd_model=None, forge_loading_parameters={"checkpoint_info": "tiny"}, forge_hash="")
        self.modules["sd_models"].model_data = data
        del self.modules["sd_models"].reload_model_weights

        def forge_model_reload() -> tuple[Any, bool]:
            wanted = str(data.forge_loading_parameters)
            if data.forge_hash == wanted:
                return data.sd_model, False
            self.choose_model(Model(data.forge_loading_parameters["checkpoint_info"]))
            data.forge_hash = wanted
            return data.sd_model, True

        def process_images(p: Any) -> Any:
            p.sd_model, _ = self.modules["processing"].forge_model_reload()
            self.made.append(p)
            for weight in self.model.parameters():
                assert weight.is_inference(), "the WebUI generates with its own tensors"
            with torch.inference_mode():
                unet = self.model.forge_objects_original.unet.model.diffusion_model
                y = unet(torch.ones(1, 4, 8, 8), torch.tensor([500.0]), context=torch.ones(1, 77, 16))
            shade = int(y.abs().mean() * 1e6) % 256
            from PIL import Image

            image = Image.new("RGB", (p.width, p.height), (shade, 0, 0))
            return SimpleNamespace(images=[image], infotexts=[p.prompt], comments="")

        def tile(model: Any, on: bool) -> None:
            model.tiling_enabled = on

        self.modules["sd_models"].forge_model_reload = forge_model_reload
        processing = self.modules["processing"]
        processing.forge_model_reload, processing.process_images = forge_model_reload, process_images
        processing.apply_circular_forge = tile
        self.modules["sd_vae"] = SimpleNamespace(vae_dict={"nice.safetensors": "/vae/nice.safetensors"})
        attention, unet = types.ModuleType("backend.attention"), types.ModuleType("backend.nn.unet")
        attention.attention_pytorch, unet.attention_function = "fused", "sage"
        lora, utils = types.ModuleType("backend.patcher.lora"), types.ModuleType("backend.utils")
        lora.model_lora_keys_unet, lora.model_lora_keys_clip = (
            (lambda model, names: "unet"),
            (lambda model, names: "text"),
        )
        lora.load_lora = lambda state, kind: (
            {key for key in state if key.startswith(kind)}, {key for key in state if not key.startswith(kind)},
        )  # fmt: skip
        utils.load_torch_file = lambda path, safe_load: {"unet.a", "unet.b", "text.a", "other"}
        main_entry = types.ModuleType("modules_forge.main_entry")
        self.backend = {
            "backend": package("backend"), "backend.nn": package("backend.nn"), "backend.nn.unet": unet,
            "backend.patcher": package("backend.patcher"), "backend.patcher.lora": lora, "backend.utils": utils,
            "backend.attention": attention, "backend.memory_management": self.memory,
            "modules_forge": package("modules_forge"), "modules_forge.main_entry": main_entry,
        }  # fmt: skip
        self.choose_model(None)
        self.model = None

    @property
    def attention(self) -> Any:
        """Which attention the UNet uses."""
        return self.backend["backend.nn.unet"].attention_function


def package(name: str) -> types.ModuleType:
    """An empty package."""
    made = types.ModuleType(name)
    made.__path__ = []  # type: ignore[attr-defined]
    return made


@contextlib.contextmanager
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Forge]:
    """The fakes as packages, and the adapter imported on top of them."""
    forge = Forge(folder)
    with replaced_packages(forge, monkeypatch):
        for name, module in forge.backend.items():
            monkeypatch.setitem(sys.modules, name, module)
            above, _, leaf = name.rpartition(".")
            if above:
                setattr(forge.backend[above], leaf, module)
        yield forge
