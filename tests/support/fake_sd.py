"""A tiny SD 1.x as AUTOMATIC1111 holds it: the real ldm classes, and the WebUI's wrapper of the text encoder."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


class Tokens(nn.Module):
    """The WebUI's wrapper of a CLIP text encoder: letters are tokens, a comma is 7."""

    comma_token, id_start, id_end, id_pad = 7, 300, 301, 301

    def __init__(self, wrapped: nn.Module) -> None:
        super().__init__()
        self.wrapped = wrapped

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        return [[7 if letter == "," else 10 + ord(letter) % 200 for letter in text] for text in texts]


class Clip(nn.Module):
    """ldm's FrozenCLIPEmbedder: only its transformer matters."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import CLIPTextConfig, CLIPTextModel

        torch.manual_seed(1)
        inner = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=320, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
                bos_token_id=300, eos_token_id=301, pad_token_id=301,
            )
        )  # fmt: skip
        self.transformer = nn.Module()
        self.transformer.text_model = getattr(inner, "text_model", inner)
        self.transformer.config = inner.config
        self.transformer.forward = lambda **values: self.transformer.text_model(**values)


class Wrapper(nn.Module):
    """ldm's DiffusionWrapper for a prompt."""

    conditioning_key = "crossattn"

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.diffusion_model = unet

    def forward(self, x: Tensor, t: Tensor, c_crossattn: list[Tensor]) -> Tensor:
        return self.diffusion_model(x, t, context=torch.cat(c_crossattn, 1))


class Vae(nn.Module):
    """ldm's AutoencoderKL without its decoder."""

    def __init__(self) -> None:
        super().__init__()
        from ldm.modules.diffusionmodules.model import Encoder

        self.encoder = Encoder(
            ch=32, out_ch=3, ch_mult=(1, 1, 1, 1), num_res_blocks=1, attn_resolutions=[], in_channels=3, resolution=64,
            z_channels=4, double_z=True,
        )  # fmt: skip
        self.quant_conv = nn.Conv2d(8, 8, 1)


class Model(nn.Module):
    """``shared.sd_model``: an SD 1.x of a million weights."""

    is_sd1, is_sd2, is_sdxl, is_ssd, is_sd3, is_sdxl_inpaint, lowvram = True, False, False, False, False, False, False
    cond_stage_key, parameterization, scale_factor, image_size = "txt", "eps", 0.18215, 8

    def __init__(self, name: str = "tiny") -> None:
        super().__init__()
        from ldm.modules.diffusionmodules.openaimodel import UNetModel

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            unet = UNetModel(
                image_size=8, in_channels=4, out_channels=4, model_channels=32, attention_resolutions=[1, 2],
                num_res_blocks=2, channel_mult=[1, 2], num_heads=4, use_spatial_transformer=True, transformer_depth=1,
                context_dim=16, legacy=False, use_checkpoint=True,
            )  # fmt: skip
            for weight in unet.parameters():  # some layers begin as zeros
                if not weight.any():
                    nn.init.normal_(weight, std=0.02)
            self.model, self.first_stage_model = Wrapper(unet), Vae().requires_grad_(False)
            self.cond_stage_model = Tokens(Clip()).requires_grad_(False)
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        self.alphas_cumprod_original = (1 - betas).cumprod(0)
        self.alphas_cumprod = self.alphas_cumprod_original.half()
        self.sd_checkpoint_info = SimpleNamespace(filename=f"/models/{name}.safetensors", name=name, sha256="ab" * 32)
        self.eval()

    def apply_model(self, x: Tensor, t: Tensor, cond: dict[str, Any]) -> Tensor:
        for key in cond:
            cond[key] = [part.half().float() for part in cond[key]]  # the WebUI casts in place, in its own format
        return self.model(x, t, **cond)
