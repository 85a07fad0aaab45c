"""A few latents of the base model's or the LoRA's own, for measures; they are never shown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lora_trainer.measures.probe import Probe, fixed_noise


def sample(
    probe: Probe, texts: Sequence[str], shape: Sequence[int], key: str, steps: int = 10, guidance: float = 5.0
) -> Tensor:
    """Latents [N, 4, h, w] by DDIM (Song et al. 2021) with guidance, from noise of each text's place in the list."""
    alphas = probe.schedule.alphas_cumprod.float()
    times = torch.linspace(len(alphas) - 1, 0, steps + 1).round().long()[:-1]
    x = torch.stack([fixed_noise(shape, key, i) for i in range(len(texts))])
    for index, t in enumerate(times.tolist()):
        steps_now = torch.full((2 * len(texts),), t)
        output = probe.predict(torch.cat([x, x]), steps_now, [*[""] * len(texts), *texts])
        without, with_text = output.chunk(2)
        guided = without + guidance * (with_text - without)
        signal, spread = alphas[t].sqrt(), (1 - alphas[t]).sqrt()
        if probe.model.info.prediction_type == "v_prediction":
            clean, noise = signal * x - spread * guided, signal * guided + spread * x
        else:
            clean, noise = (x - spread * guided) / signal.clamp_min(1e-3), guided
        following = alphas[times[index + 1]] if index + 1 < len(times) else torch.tensor(1.0)
        x = following.sqrt() * clean + (1 - following).sqrt() * noise
    return x
