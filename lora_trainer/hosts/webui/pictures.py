"""Pictures through the WebUI's own pipeline, without traces: options, counters, previews, history and RNG stay."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import torch
from modules import processing, scripts, sd_samplers, shared

from lora_trainer.errors import ConfigError, FileError, HostBusyError, quoted
from lora_trainer.hosts.base import GeneratedImage, GenerateRequest

STATE = ("job", "job_no", "job_count", "textinfo", "sampling_steps", "time_start")
OTHER_NAMES = {
    "pndm": "PLMS",
    "plms": "PLMS",
    "dpmsolver": "DPM++ 2M",
    "dpmsolverpp": "DPM++ 2M",
    "dpmsingle": "DPM++ 2S a",
}


def sampler_name(name: str) -> tuple[str, str]:
    """The WebUI's names of sampler and schedule for one of sd-scripts' or its own (``euler_a``, ``DPM++ 2M Karras``).

    Raises:
        ConfigError: if there is no such sampler; lists what there is.
    """
    known: dict[str, str] = {}
    for sampler in sd_samplers.all_samplers:
        for spelling in (sampler.name, *sampler.aliases):
            known.setdefault(_plain(spelling).removeprefix("k"), sampler.name)
    known.update({key: label for key, label in OTHER_NAMES.items() if _plain(label) in known})
    plain = _plain(name).removeprefix("k")
    base = plain.removesuffix("karras")
    found = known.get(plain) or known.get(base)
    if found is None:
        names = ", ".join(sampler.name for sampler in sd_samplers.all_samplers)
        raise ConfigError(f"There is no sampler {quoted(name)}; choose one of {names}.")
    return found, "Karras" if base != plain and plain not in known else "Automatic"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp"))


def make_picture(model: Any, request: GenerateRequest, extra_networks: bool) -> GeneratedImage | None:
    """One picture; None if it was interrupted.

    Args:
        extra_networks: whether ``<lora:…>`` in the prompt means something; not while our own hooks are on.

    Raises:
        FileError: if the prompt names a LoRA that the WebUI can't find.
    """
    sampler, scheduler = sampler_name(request.sampler)
    p = processing.StableDiffusionProcessingTxt2Img(
        sd_model=model, prompt=request.prompt, negative_prompt=request.negative_prompt, seed=request.seed, subseed=-1,
        sampler_name=sampler, scheduler=scheduler, steps=request.steps, cfg_scale=request.cfg_scale,
        width=request.width, height=request.height, batch_size=1, n_iter=1, restore_faces=False, tiling=False,
        do_not_save_samples=True, do_not_save_grid=True, do_not_reload_embeddings=True,
        disable_extra_networks=not extra_networks, override_settings=_overrides(),
    )  # fmt: skip
    p.scripts = scripts.ScriptRunner()  # none of other extensions; without any runner infotexts lose their <lora:…>
    for name in ("cached_c", "cached_uc", "cached_hr_c", "cached_hr_uc"):
        setattr(p, name, [None] * len(getattr(p, name)))  # conditioning depends on weights that are being trained
    with closing(p), _unnoticed():
        result = processing.process_images(p)
    if not result.images:
        return None
    if extra_networks and "not found" in (result.comments or ""):
        raise FileError(
            f"The WebUI doesn't find a LoRA of the prompt {quoted(request.prompt)}; it must be in the Lora folder."
        )
    if shared.sd_model is not model:
        raise HostBusyError("The checkpoint was changed while an image was made; choose it again, then resume the run.")
    return GeneratedImage(result.images[0], request, result.infotexts[0])


def _overrides() -> dict[str, Any]:
    """Options that would put something of their own into our pictures."""
    if shared.cmd_opts.freeze_settings:
        return {}
    wanted = {"sd_lora": "None", "sd_unet": "None", "samples_format": None}
    return {
        key: value
        for key, value in wanted.items()
        if value is not None and shared.opts.data.get(key, value) != value  # only stored ones are restored afterwards
    }


@contextmanager
def _unnoticed() -> Iterator[None]:
    """The job's counters, the last-prompt file and the global RNG stay as they are."""
    state, history = shared.state, shared.cmd_opts.no_prompt_history
    counters = {name: getattr(state, name) for name in STATE}
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    shared.cmd_opts.no_prompt_history = True
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        shared.cmd_opts.no_prompt_history = history
        for name, value in counters.items():
            setattr(state, name, value)
        state.sampling_step = 0
        state.current_latent = None
        shared.total_tqdm.clear()
