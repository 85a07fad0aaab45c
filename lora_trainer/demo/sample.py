"""A small sampler: pictures from the pieces of a checkpoint, without a pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lora_trainer.demo.text import tokenise
from lora_trainer.demo.world import SIZE

TEXT = "cond_stage_model.transformer."


class Pieces:
    """The four parts of a checkpoint in float32, ready to sample."""

    def __init__(
        self, unet: UNet2DConditionModel, vae: AutoencoderKL, encoder: CLIPTextModel, tokenizer: CLIPTokenizer
    ):
        self.unet, self.vae, self.encoder, self.tokenizer = unet.eval(), vae.eval(), encoder.eval(), tokenizer

    @classmethod
    def load(cls, checkpoint: Path, tokenizer: Path) -> Pieces:
        """From an LDM file with its config beside it and a tokenizer folder."""
        config = str(checkpoint.with_suffix(".yaml"))
        unet = UNet2DConditionModel.from_single_file(str(checkpoint), original_config=config, torch_dtype=torch.float32)
        vae = AutoencoderKL.from_single_file(str(checkpoint), original_config=config, torch_dtype=torch.float32)
        encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(tokenizer))
        nested = any(key.startswith("text_model.") for key in encoder.state_dict())
        state = {k.removeprefix(TEXT): v.float() for k, v in load_file(checkpoint).items() if k.startswith(TEXT)}
        state = {k if nested else k.removeprefix("text_model."): v for k, v in state.items()}
        missing = encoder.load_state_dict(state, strict=False).missing_keys
        if any(not key.endswith("position_ids") for key in missing):
            raise ValueError(f"the checkpoint lacks {missing}")
        return cls(unet, vae, encoder, CLIPTokenizer.from_pretrained(tokenizer))

    @torch.no_grad()
    def embed(self, prompts: list[str]) -> Tensor:
        """Text states (n, 77, width)."""
        return self.encoder(tokenise(self.tokenizer, prompts)).last_hidden_state

    @torch.no_grad()
    def latents(self, prompts: list[str], seeds: list[int], steps: int = 20, guidance: float = 4.0) -> Tensor:
        """DDIM with classifier-free guidance from CPU noise of each seed; (n, 4, 8, 8), ready to decode."""
        scheduler = DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        )
        scheduler.set_timesteps(steps)
        noise = [
            torch.randn((4, SIZE // 8, SIZE // 8), generator=torch.Generator().manual_seed(seed)) for seed in seeds
        ]
        x = torch.stack(noise)
        states = torch.cat([self.embed([""]).expand(len(prompts), -1, -1), self.embed(prompts)])
        for t in scheduler.timesteps:
            empty, full = self.unet(torch.cat([x, x]), t, states).sample.chunk(2)
            x = scheduler.step(empty + guidance * (full - empty), t, x).prev_sample
        return x / 0.18215

    @torch.no_grad()
    def pictures(
        self, prompts: list[str], seeds: list[int], steps: int = 20, guidance: float = 4.0
    ) -> list[Image.Image]:
        """One 64 px picture for each prompt and seed, 25 at a time."""
        result: list[Image.Image] = []
        for i in range(0, len(prompts), 25):
            x = self.latents(prompts[i : i + 25], seeds[i : i + 25], steps, guidance)
            pixels = ((self.vae.decode(x).sample.clamp(-1, 1) + 1) * 127.5).round().byte()
            result += [Image.fromarray(np.ascontiguousarray(p.permute(1, 2, 0).numpy())) for p in pixels]
        return result
