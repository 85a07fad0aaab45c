"""Building UNet, VAE and text encoders from a checkpoint file, without downloads and without random initialisation."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from lora_trainer.errors import UnsupportedModelError
from lora_trainer.families import PredictionType
from lora_trainer.hosts.standalone import ldm_keys
from lora_trainer.hosts.standalone.architecture import text_layouts, unet_arguments, vae_arguments
from lora_trainer.hosts.standalone.checkpoint_file import open_checkpoint
from lora_trainer.hosts.standalone.clip import ClipTextEncoder
from lora_trainer.hosts.standalone.detect import UNET, VAE, Detected

log = logging.getLogger(__name__)


@dataclass
class Parts:
    """A model in pieces, frozen, in eval mode, in the file's number format on the CPU."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoders: list[ClipTextEncoder]
    prediction_type: PredictionType

    @property
    def modules(self) -> dict[str, list[nn.Module]]:
        """The pieces by the name under which they can be placed."""
        return {"unet": [self.unet], "vae": [self.vae], "text_encoders": list(self.text_encoders)}


def build_parts(found: Detected, vae: Path | None = None, prediction_type: PredictionType | None = None) -> Parts:
    """Build the modules of a checkpoint. ``vae``: another file to take the VAE from.

    Raises:
        UnsupportedModelError: if the file's weights don't fit the architecture that they seem to be of.
    """
    file, name = found.file, found.file.path.name
    try:
        arguments, layouts = unet_arguments(found), text_layouts(found)
    except KeyError as error:
        raise UnsupportedModelError(f"{name} has no tensor {error.args[0]}; use another checkpoint.") from None
    with torch.device("meta"):
        unet = UNet2DConditionModel(**arguments)
        encoders = [ClipTextEncoder(layout) for layout in layouts]
    layers = int(unet.config.layers_per_block)
    _fill(unet, ldm_keys.unet_state(file.read(UNET), UNET, layers), f"{name}'s UNet")
    for encoder in encoders:
        layout = encoder.layout
        weights = file.read(layout.prefix)
        if layout.open_clip:
            state = ldm_keys.open_clip_state(weights, layout.prefix, layout.layers, layout.projection > 0)
        else:
            state = ldm_keys.clip_state(weights, layout.prefix)
        _fill(encoder, state, f"{name}'s text encoder")
    guessed = prediction_type or found.prediction_type or _probe_prediction_type(unet)
    return Parts(unet, _build_vae(found, vae), encoders, guessed)


def _build_vae(found: Detected, path: Path | None) -> AutoencoderKL:
    file, prefix = found.file, VAE
    if path is not None:
        file = open_checkpoint(path)
        prefix = VAE if any(name.startswith(VAE) for name in file.shapes) else ""
    arguments = vae_arguments(found, file, prefix)
    with torch.device("meta"):
        vae = AutoencoderKL(**arguments)
    weights = file.read(prefix)
    if ldm_keys.is_diffusers_vae(weights):
        state = ldm_keys.diffusers_vae_state(weights)
    else:
        state = ldm_keys.vae_state(weights, prefix, len(arguments["block_out_channels"]))
    _fill(vae, state, f"{file.path.name}'s VAE")
    return vae


def _fill(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Give ``module``, built on the meta device, its weights; frozen and in eval mode."""
    for path, buffer in list(module.named_buffers()):  # which no file has to hold
        if path.endswith("position_ids"):
            owner = module.get_submodule(path.rpartition(".")[0])
            owner.register_buffer("position_ids", torch.arange(buffer.shape[-1])[None], persistent=False)
    expected = module.state_dict()
    missing = next((name for name in sorted(expected) if name not in state), None)
    if missing:
        raise UnsupportedModelError(
            f"{what} isn't laid out as Stable Diffusion's ({missing} is missing); use another checkpoint."
        )
    used = {name: state[name] for name in expected}
    wrong = next((name for name, tensor in used.items() if tensor.shape != expected[name].shape), None)
    if wrong:
        raise UnsupportedModelError(f"{what} has a tensor of an unexpected shape ({wrong}); use another checkpoint.")
    unused = sorted(state.keys() - expected.keys())
    if unused:  # merging programs leave behind what no model uses, such as a projection beside SD 1.x' text encoder
        log.info("%s: not used are %s", what, ", ".join(unused))
    module.load_state_dict(used, strict=True, assign=True)
    module.requires_grad_(False)
    module.eval()


@torch.no_grad()
def _probe_prediction_type(unet: UNet2DConditionModel) -> PredictionType:
    """Tell ε from v prediction by running the UNet, as AUTOMATIC1111 does where nothing says it (SD 2.x).

    Given a constant instead of noise at the last timestep, an ε model gives roughly the constant back; a v model, for
    which noise has hardly any part in the answer there, gives something far below.
    """
    width = unet.config.cross_attention_dim
    weights = [(weight, weight.data) for weight in unet.parameters()]
    try:
        for weight, data in weights:
            weight.data = data.float()
        constant = torch.full((1, 4, 8, 8), 0.5)
        answer = unet(constant, torch.tensor([999]), torch.full((1, 2, width), 0.5)).sample
    finally:
        for weight, data in weights:
            weight.data = data
    return "v_prediction" if float((answer - constant).mean()) < -1 else "epsilon"


def fingerprint(*modules: nn.Module, settings: str = "") -> str:
    """SHA-256 over all names, formats, shapes and bytes of the modules' weights and a text of settings."""
    digest = hashlib.sha256(settings.encode())
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()))
    return digest.hexdigest()
