"""The tiny UNet and text encoder: layout, captions for training, and training on a table of latents."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from lora_trainer.demo import world
from lora_trainer.demo.muon import optimizers
from lora_trainer.demo.text import tokenise
from lora_trainer.demo.vae import average, learning_rate

WIDTHS = (64, 64)
HEADS = 2
ATTRIBUTES = (world.SHAPES, tuple(world.COLOURS), tuple(world.POSITIONS), tuple(world.BACKGROUNDS))


def make_unet(seed: int) -> UNet2DConditionModel:
    """An untrained UNet for (4, 8, 8) latents: two levels with attention everywhere."""
    torch.manual_seed(seed)
    levels = len(WIDTHS)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=2,
        block_out_channels=WIDTHS,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        cross_attention_dim=32,
        attention_head_dim=HEADS,  # in SD 1.x's configs this field holds the number of heads
    )


def alphas_cumprod(steps: int = 1000) -> Tensor:
    """SD 1.x's schedule (steps,), scaled-linear 0.00085 to 0.012, float64."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, steps, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0)


@dataclass
class Table:
    """Latents (n, 4, 8, 8) and the word numbers (n, 4) of shape, colour, position, background."""

    latents: Tensor
    words: np.ndarray

    def standardise(self) -> tuple[Tensor, Tensor]:
        """Shift and scale the latents to zero mean and unit variance; returns what was taken out, (4,) and (4,)."""
        mean, deviation = self.latents.mean((0, 2, 3)), self.latents.std((0, 2, 3))
        self.latents = (self.latents - mean[:, None, None]) / deviation[:, None, None]
        return mean, deviation


@torch.no_grad()
def make_table(vae: AutoencoderKL, each: int, seed: int) -> Table:
    """Draw and encode every combination of words ``each`` times."""
    rng = np.random.default_rng(seed)
    shapes = tuple(len(words) for words in ATTRIBUTES)
    words = np.stack(np.unravel_index(np.arange(np.prod(shapes) * each) % np.prod(shapes), shapes), axis=1)
    parts = []
    for rows in np.array_split(words, max(1, len(words) // 64)):
        named = [[ATTRIBUTES[a][i] for a, i in enumerate(row)] for row in rows]
        pictures = np.stack([world.draw(world.jittered(s, c, p, b, rng)) for s, c, p, b in named])
        pixels = torch.from_numpy(pictures.transpose(0, 3, 1, 2)).float() / 127.5 - 1
        parts.append(vae.quant_conv(vae.encoder(pixels))[:, :4])
    return Table(torch.cat(parts), words)


class Captions:
    """Random captions of rows of word numbers, as tokens.

    Shares of captions: 10 % empty (for guidance), 15 % leave facts out, 6 % name the shape by a random unknown word, so
    that an unknown word means "some shape" and the rest of the caption still counts.
    """

    def __init__(self, tokenizer: CLIPTokenizer, rng: np.random.Generator):
        self.tokenizer, self.rng = tokenizer, rng
        self.known: dict[str, Tensor] = {}
        self.shape_ids = torch.tensor([tokenizer(word).input_ids[1] for word in world.SHAPES])

    def tokens(self, text: str) -> Tensor:
        """Token numbers (77,), remembered."""
        if text not in self.known:
            self.known[text] = tokenise(self.tokenizer, [text])[0]
        return self.known[text]

    def batch(self, rows: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """Tokens (n, 77) of n rows of word numbers, and which facts they tell (n, 4)."""
        told = np.ones(rows.shape, dtype=bool)
        result = []
        for row, tells in zip(rows, told, strict=True):
            style, share = int(self.rng.integers(2)), self.rng.random()
            if share < 0.10:
                tells[:] = False
                result.append(self.tokens(""))
                continue
            if share < 0.25:
                tells[1:] = self.rng.random(3) < 0.5
            shape, *others = (ATTRIBUTES[a][i] for a, i in enumerate(row))
            colour, position, background = (o if t else None for o, t in zip(others, tells[1:], strict=True))
            tokens = self.tokens(world.caption(shape, colour, position, background, style))
            if share > 0.94:
                unknown = int(self.rng.integers(600, 49000))
                tokens = torch.where(torch.isin(tokens, self.shape_ids), unknown, tokens)
                tells[0] = False
            result.append(tokens)
        return torch.stack(result), told


class Probe(nn.Module):
    """Reads the four facts, or that they are not told, from the text encoder's states: an attention pool and a
    classifier for each."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.pool = nn.Linear(width, len(ATTRIBUTES))
        self.heads = nn.ModuleList(nn.Linear(width, len(words) + 1) for words in ATTRIBUTES)

    def forward(self, states: Tensor) -> list[Tensor]:
        pooled = torch.einsum("bta,btd->abd", self.pool(states).softmax(1), states)
        return [head(p) for head, p in zip(self.heads, pooled, strict=True)]


def teach_words(
    encoder: CLIPTextModel, captions: Captions, steps: int, report: Callable[[str], None], batch: int = 32
) -> None:
    """Train the text encoder to tell which facts a caption states. The UNet then learns with it as it is, as in SD."""
    probe = Probe()
    optimizer = torch.optim.AdamW(nn.ModuleList([encoder, probe]).parameters(), lr=2e-3, weight_decay=0.0)
    sizes = np.array([len(words) for words in ATTRIBUTES])
    for step in range(steps):
        rows = captions.rng.integers(0, sizes, (batch, len(sizes)))
        tokens, told = captions.batch(rows)
        answers = torch.from_numpy(np.where(told, rows, sizes))
        outputs = probe(encoder(tokens).last_hidden_state)
        loss = torch.stack([F.cross_entropy(o, answers[:, a]) for a, o in enumerate(outputs)]).sum()
        optimizer.param_groups[0]["lr"] = learning_rate(step, steps, 2e-3, warmup=20)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if (step + 1) % 50 == 0:
            report(f"words step {step + 1}/{steps} loss {float(loss.detach()):.4f}")


class States:
    """The text encoder's states of token rows, remembered."""

    def __init__(self, encoder: CLIPTextModel):
        self.encoder = encoder.eval().requires_grad_(False)
        self.known: dict[bytes, Tensor] = {}

    @torch.no_grad()
    def __call__(self, tokens: Tensor) -> Tensor:
        keys = [row.numpy().tobytes() for row in tokens]
        new = [i for i, key in enumerate(keys) if key not in self.known]
        if new:
            for i, state in zip(new, self.encoder(tokens[new]).last_hidden_state, strict=True):
                self.known[keys[i]] = state
        return torch.stack([self.known[key] for key in keys])


def share_gradients(parameters: list[nn.Parameter], flag: float) -> float:
    """Average the gradients over the processes, if there are several; returns the sum of their flags."""
    if not (dist.is_available() and dist.is_initialized()):
        return flag
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads] + [torch.tensor([flag * dist.get_world_size()])])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for g, part in zip(grads, flat[:-1].split([g.numel() for g in grads]), strict=True):
        g.copy_(part.view_as(g))
    return float(flat[-1])


def train_unet(
    table: Table,
    tokenizer: CLIPTokenizer,
    encoder: CLIPTextModel,
    steps: int,
    seed: int,
    batch: int = 64,
    peak: float = 2e-3,
    every: int = 500,
    report: Callable[[str], None] = lambda line: None,
    shorter: Callable[[], int] | None = None,
) -> Iterator[tuple[int, UNet2DConditionModel]]:
    """Train on min-SNR-5-weighted noise prediction (Hang et al. 2023); yields (step, averaged UNet) every so often.

    With torch.distributed each process takes its part of every batch. The rate is flat for 60 % of the steps, then
    falls to zero; ``shorter`` is asked now and then for a new total number of steps, 0 for no change.
    """
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    captions, states = Captions(tokenizer, rng), States(encoder)
    unet = make_unet(seed).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    smooth = copy.deepcopy(unet).requires_grad_(False)
    parameters = list(unet.parameters())
    pairs = optimizers(unet, 2.5 * peak, peak, ("conv_in", "conv_out"))
    alphas = alphas_cumprod()
    snr = alphas / (1 - alphas)
    weight = (snr.clamp(max=5) / snr).float()
    signal, noisiness = alphas.sqrt().float()[:, None, None, None], (1 - alphas).sqrt().float()[:, None, None, None]
    total, seen, step = 0.0, 0, 0
    while step < steps:
        rate = min((step + 1) / 100, 1.0, max(0.02, (steps - step) / (0.4 * steps)))
        for optimizer, top in pairs:
            for group in optimizer.param_groups:
                group["lr"] = top * rate
        chosen = rng.integers(0, len(table.latents), batch)
        tokens, _ = captions.batch(table.words[chosen])
        times = (((torch.arange(batch) + torch.rand(batch, generator=generator)) / batch) * 1000).long()
        noise = torch.randn((batch, *table.latents.shape[1:]), generator=generator)
        mine = slice(rank, None, size)
        clean, noise, times = table.latents[chosen][mine], noise[mine], times[mine]
        output = unet(signal[times] * clean + noisiness[times] * noise, times, states(tokens[mine])).sample
        loss = ((output - noise).square().mean((1, 2, 3)) * weight[times]).mean()
        unet.zero_grad(set_to_none=True)
        loss.backward()
        wish = shorter() if shorter and rank == 0 and step % 20 == 0 else 0
        steps = round(share_gradients(parameters, wish)) or steps
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer, _ in pairs:
            optimizer.step()
        average(smooth, unet, min(0.998, (step + 1) / (step + 10)))
        total, seen, step = total + float(loss.detach()), seen + 1, step + 1
        if step % 50 == 0:
            report(f"unet step {step}/{steps} loss {total / seen:.5f}")
            total, seen = 0.0, 0
        if step % every == 0 or step == steps:
            yield step, smooth
