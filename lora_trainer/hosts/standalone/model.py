"""A checkpoint's parts at work: encode, predict, decode and generate in the precision of the moment."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lora_trainer.errors import LoraTrainerError
from lora_trainer.families import traits
from lora_trainer.frozen_weights.held import FrozenWeights
from lora_trainer.hosts.base import (
    PARTS,
    Conditioning,
    GeneratedImage,
    GenerateRequest,
    ModelInfo,
    Part,
    SizeConditioning,
    TextEncoder,
)
from lora_trainer.hosts.standalone.generation import Denoiser, Task, check, sample_latents, to_image
from lora_trainer.hosts.standalone.parts import Parts
from lora_trainer.hosts.standalone.placement import Placement
from lora_trainer.hosts.standalone.prompt import LoraTag, infotext, split_prompt
from lora_trainer.hosts.standalone.samplers import find_sampler
from lora_trainer.hosts.tiles import in_tiles
from lora_trainer.noise_schedule import rescale_zero_terminal_snr

AttachLoras = Callable[["DiffusersModel", Sequence[LoraTag]], AbstractContextManager[None]]


@dataclass(frozen=True)
class PictureSettings:
    """How pictures are made, beyond what a request says."""

    clip_skip: int = 1
    zero_terminal_snr: bool = False


class DiffusersModel:
    """The model while it is used; implements :class:`lora_trainer.hosts.base.TakenModel`.

    Parts are placed on the device when they are first needed, and stay until :meth:`keep` or :meth:`put_back`.
    """

    apart = False

    def __init__(
        self,
        parts: Parts,
        info: ModelInfo,
        alphas_cumprod: Tensor,
        device: torch.device,
        pictures: PictureSettings,
        attach_loras: AttachLoras,
    ) -> None:
        self.info, self.device, self.alphas_cumprod = info, device, alphas_cumprod
        self.unet: nn.Module = parts.unet
        self.weights = FrozenWeights(self.unet, device)
        family = traits(info.family)
        self.text_encoders: Sequence[TextEncoder] = [
            TextEncoder(encoder, prefix, "transformers")
            for encoder, prefix in zip(parts.text_encoders, family.lora_text, strict=True)
        ]
        self.dtype = torch.float32
        self.parts, self._pictures, self._attach_loras = parts, pictures, attach_loras
        self._placements = {name: [Placement(m) for m in modules] for name, modules in parts.modules.items()}
        self._away: set[Part] = set()
        self._vae_needs_fp32 = family.vae_overflows

    # Where the parts are

    def begin(self, dtype: torch.dtype) -> None:
        """Place the UNet on the device in ``dtype``; the other parts follow when they are needed."""
        self.dtype = dtype
        self._away.clear()
        self._need("unet")

    def put_back(self) -> None:
        """Give every part its original weights, on the CPU and in the file's number format."""
        self.weights.put_back()
        self.weights.choose((), ())
        for placements in self._placements.values():
            for placement in placements:
                placement.restore()
        self._away.clear()

    def modules(self, part: Part) -> list[nn.Module]:
        """See :class:`lora_trainer.hosts.base.TakenModel`."""
        return self.parts.modules[part]

    def keep(self, parts: Collection[Part]) -> None:
        """See :class:`lora_trainer.hosts.base.TakenModel`."""
        self._away = {part for part in PARTS if part not in parts}
        for part in self._away:
            self._restore(part)
        for part in parts:
            self._need(part)

    def hold(self, in_8_bits: Collection[nn.Module], in_cpu: Collection[nn.Module]) -> None:
        """See :class:`lora_trainer.hosts.base.TakenModel`."""
        self._restore("unet")
        self.weights.choose(in_8_bits, in_cpu)
        if "unet" not in self._away:
            self._need("unet")

    def _need(self, part: Part) -> None:
        dtype = self._vae_dtype if part == "vae" else self.dtype
        for placement in self._placements[part]:
            placement.place(self.device, dtype, self.weights.chosen() if part == "unet" else ())
        if part == "unet":
            self.weights.take(dtype)

    def _restore(self, part: Part) -> None:
        if part == "unet":
            self.weights.put_back()
        for placement in self._placements[part]:
            placement.restore()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def _vae_dtype(self) -> torch.dtype:
        """fp16 only on CUDA in half precision and as long as it gave finite numbers; bf16 would be coarse."""
        fp16 = self.device.type == "cuda" and self.dtype != torch.float32 and not self._vae_needs_fp32
        return torch.float16 if fp16 else torch.float32

    # What the trainer asks

    @torch.no_grad()
    def encode_images(self, pixels: Tensor, tile: int = 0) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the scaled latents, float32; see the protocol.

        Raises:
            LoraTrainerError: if they aren't finite even in fp32.
        """

        def encode(part: Tensor) -> Tensor:
            latents = self.parts.vae.encode(part.to(self.device, self._vae_dtype)).latent_dist
            return torch.stack([latents.mean.float(), latents.std.float()])

        made = self._finite(lambda: in_tiles(encode, pixels, tile), "The VAE gives NaN for these images")
        mean, std = made * self._vae_scale
        return mean, std

    def encode_captions(self, captions: Sequence[str], max_token_length: int, clip_skip: int) -> Conditioning:
        """Encode literal texts to [B, n·75 + 2, C]; SD 1.x only heeds ``clip_skip``."""
        self._need("text_encoders")
        encoded = [encoder.encode(captions, max_token_length, clip_skip) for encoder in self.parts.text_encoders]
        return Conditioning(torch.cat([context for context, _ in encoded], dim=-1), encoded[-1][1])

    def predict(
        self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, sizes: Sequence[SizeConditioning]
    ) -> Tensor:
        """The UNet's output, float32 [B, 4, h, w]."""
        self._need("unet")
        added = None
        if conditioning.pooled is not None:
            numbers = [[*size.original, *size.crop, *size.target] for size in sizes]
            time_ids = torch.tensor(numbers, dtype=torch.float32, device=self.device)
            added = {"text_embeds": conditioning.pooled.to(self.device, self.dtype), "time_ids": time_ids}
        return self.unet(
            noisy.to(self.device, self.dtype),
            timesteps.to(self.device),
            encoder_hidden_states=conditioning.context.to(self.device, self.dtype),
            added_cond_kwargs=added,
        ).sample.float()

    def blocks(self) -> list[nn.Module]:
        """Residual and transformer blocks in forward order."""
        unet = self.parts.unet
        found: list[nn.Module] = []
        for stage in [*unet.down_blocks, unet.mid_block, *unet.up_blocks]:
            attentions = list(getattr(stage, "attentions", []))
            for index, resnet in enumerate(stage.resnets):  # the middle has one residual block more at the front
                before = index - (1 if stage is unet.mid_block else 0)
                if stage is unet.mid_block and before >= 0:
                    found += attentions[before].transformer_blocks
                found.append(resnet)
                if stage is not unet.mid_block and attentions:
                    found += attentions[index].transformer_blocks
        return found

    def generate(self, request: GenerateRequest) -> GeneratedImage:
        """Make a picture with whatever is attached to the modules, and with the LoRAs that its prompt names."""
        return self.generate_many([request])[0]

    # Pictures

    def generate_many(self, requests: Sequence[GenerateRequest], batch_size: int = 8) -> list[GeneratedImage]:
        """Make several pictures, together where size, steps, sampler, scale and LoRAs agree.

        Each is the one that :meth:`generate` makes, up to the rounding of arithmetic in batches.
        """
        groups: dict[object, list[tuple[int, Task]]] = {}
        for index, request in enumerate(requests):
            check(request)
            task = Task(request, *split_prompt(request.prompt))
            groups.setdefault(task.key, []).append((index, task))
        made: dict[int, GeneratedImage] = {}
        with torch.no_grad(), self._away_again():
            for group in groups.values():
                with self._attach_loras(self, group[0][1].tags):
                    for start in range(0, len(group), batch_size):
                        made.update(self._generate_batch(group[start : start + batch_size]))
        return [made[index] for index in range(len(requests))]

    def _generate_batch(self, numbered: Sequence[tuple[int, Task]]) -> dict[int, GeneratedImage]:
        latents = sample_latents(self._denoiser(), [task for _, task in numbered])
        result = {}
        for (index, task), latent in zip(numbered, latents, strict=True):
            pixels = self._decode(latent[None])[0]
            result[index] = GeneratedImage(to_image(pixels), task.request, self._infotext(task.request))
        return result

    def _denoiser(self) -> Denoiser:
        alphas, skip = self.alphas_cumprod, self._pictures.clip_skip
        return Denoiser(
            encode=lambda texts, length: self.encode_captions(texts, length, skip),
            predict=self.predict,
            alphas_cumprod=rescale_zero_terminal_snr(alphas).float() if self._pictures.zero_terminal_snr else alphas,
            prediction_type=self.parts.prediction_type,
            device=self.device,
            zero_empty_negative=traits(self.info.family).zero_empty_negative,
        )

    def _decode(self, latents: Tensor) -> Tensor:
        def decode() -> Tensor:
            return self.parts.vae.decode((latents / self._vae_scale).to(self.device, self._vae_dtype)).sample.float()

        return self._finite(decode, "The VAE gives NaN for this image")

    def _finite(self, run: Callable[[], Tensor], sentence: str) -> Tensor:
        """Run the VAE; if the result isn't finite, once more in fp32, which then stays its precision."""
        self._need("vae")
        result = run()
        if not bool(torch.isfinite(result).all()) and self._vae_dtype != torch.float32:
            self._vae_needs_fp32 = True
            self._need("vae")
            result = run()
        if not bool(torch.isfinite(result).all()):
            raise LoraTrainerError(f"{sentence}, even in fp32; use another VAE (the checkpoint's may be damaged).")
        return result

    @property
    def _vae_scale(self) -> float:
        return float(self.parts.vae.config.scaling_factor)

    def _infotext(self, request: GenerateRequest) -> str:
        sampler = find_sampler(request.sampler)
        schedule = "Karras" if sampler.karras else ""
        info, skip = self.info, self._pictures.clip_skip
        vae = [f"VAE: {info.vae}"] if info.vae else []
        return infotext(request, sampler.label, schedule, info.checkpoint, info.checkpoint_sha256, skip, vae)

    @contextmanager
    def _away_again(self) -> Iterator[None]:
        """Only what was kept before is kept afterwards."""
        try:
            yield
        finally:
            for part in self._away:
                self._restore(part)
