"""Test only: lets the suite see and disturb what is inside the WebUI. Never part of the extension."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from fastapi import Request
from modules import script_callbacks, scripts, sd_models, shared

opened: list[str] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str) and arguments[0].endswith((".safetensors", ".ckpt", ".pt")):
        opened.append(arguments[0])


def _noting(function: Any) -> Any:
    """safetensors opens files in Rust, which no audit hook sees."""

    def noting(file: Any, *arguments: Any, **values: Any) -> Any:
        opened.append(str(file))
        return function(file, *arguments, **values)

    return noting


if not hasattr(sys, "_lora_trainer_probe"):  # "Reload UI" executes this file again
    sys._lora_trainer_probe = opened
    sys.addaudithook(_audit)
    safetensors.torch.load_file = _noting(safetensors.torch.load_file)
    safetensors.safe_open = _noting(safetensors.safe_open)
    if hasattr(sd_models, "read_state_dict"):
        sd_models.read_state_dict = _noting(sd_models.read_state_dict)
opened = sys._lora_trainer_probe


ARCHITECTURES = Path(scripts.basedir()) / "architectures"
if ARCHITECTURES.is_dir():  # of the tiny checkpoints; the model is loaded after the scripts
    import open_clip

    open_clip.add_model_config(ARCHITECTURES)

FORGE = importlib.util.find_spec("modules_forge") is not None
small: Any = None if FORGE else importlib.import_module("small_captioners")  # of A1111's classes
inside: Any = importlib.import_module("probe_forge" if FORGE else "probe_a1111")


def checksum() -> dict[str, str]:
    """SHA-256 over every weight and buffer of each part of the model, with devices and formats."""
    sums = {}
    for name, part in inside.parts().items():
        digest = hashlib.sha256()
        for key, tensor in sorted(part.state_dict().items()):
            digest.update(f"{key} {tensor.dtype} {tensor.device} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        sums[name] = digest.hexdigest()
    return sums


def condition() -> dict[str, Any]:
    """Everything that a trainer may have left changed."""
    model, roots = shared.sd_model, list(inside.parts().values())
    modules = [module for root in roots for module in root.modules()]
    weights = [weight for root in roots for weight in root.parameters()]
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in modules)
    return {
        "requires_grad": sum(weight.requires_grad for weight in weights),
        "gradients": sum(not weight.is_inference() and weight.grad is not None for weight in weights),
        "inference": sum(weight.is_inference() for weight in weights),
        "objects": hashlib.sha256(str(sorted(map(id, weights))).encode()).hexdigest(),
        "training": sum(module.training for module in modules),
        "hooks": hooks,
        "own_forwards": sum("forward" in vars(module) for module in modules),
        "parallel": getattr(shared, "parallel_processing_allowed", None),
        "padding": sorted({str(getattr(module, "padding_mode", "")) for module in modules}),
        "restart": "request_restart" in vars(shared.state),
        "state": {key: getattr(shared.state, key) for key in ("skipped", "interrupted", "job", "job_count")},
        "rng": hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest(),
        "history": shared.cmd_opts.no_prompt_history,
        "checkpoint": model.sd_checkpoint_info.name,
        "options": {key: shared.opts.data.get(key) for key in ("sd_model_checkpoint", "sd_vae", "sd_lora", "sd_unet")},
        **inside.condition(),
    }


def fail_at(step: int) -> None:
    """Let the training break in the middle of a step, with the hooks on."""
    from lora_trainer.training import loop

    original, count = loop.training_step, 0

    def breaking(*arguments: Any, **values: Any) -> Any:
        nonlocal count
        count += 1
        if count == step:
            loop.training_step = original
            raise RuntimeError("broken by the test")
        return original(*arguments, **values)

    loop.training_step = breaking


def gradients() -> dict[str, float]:
    """How far gradients with recomputation are from those without: all together, and in the worst weight."""
    from modules.call_queue import queue_lock

    from lora_trainer.config import RunConfig
    from lora_trainer.hosts.base import SizeConditioning
    from lora_trainer.network.network import LoraNetwork
    from lora_trainer.training.checkpointing import checkpoint_blocks

    def once(recompute: bool) -> list[torch.Tensor]:
        config = RunConfig().replace(network_dim=2)
        network = LoraNetwork.create(held.unet, held.text_encoders, held.info, config, 5)
        weights = [weight for group in network.parameter_groups(config) for weight in group["params"]]
        with torch.no_grad():
            for number, weight in enumerate(weights):
                weight.add_(0.01 * (number % 3))
        network.begin_step(1, samples=[0])
        with network, checkpoint_blocks(held.blocks() if recompute else []):
            x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3)).to(held.device)
            captions = held.encode_captions(["a red ball"], 75, 1)
            sizes = [SizeConditioning((64, 64), (0, 0), (64, 64))]
            held.predict(x, torch.tensor([500]).to(held.device), captions, sizes).square().mean().backward()
        return [weight.grad for weight in weights]

    with queue_lock:
        held = inside.taken()
        try:
            plain, recomputed = once(False), once(True)
        finally:
            held.close()
    apart = [(one - other).norm() for one, other in zip(plain, recomputed, strict=True)]
    whole = torch.stack(apart).norm() / torch.stack([one.norm() for one in plain]).norm()
    worst = max(float(gap / one.norm().clamp_min(1e-30)) for gap, one in zip(apart, plain, strict=True))
    return {"overall": float(whole), "worst": worst, "weights": len(plain)}


def disturb(what: str, value: Any) -> None:
    """Bring the WebUI into a state that training has to neutralise."""
    if what == "tiling":
        inside.tile(value)
    elif what == "hypernetwork":
        shared.loaded_hypernetworks[:] = [value] if value else []
    elif what == "option":
        shared.opts.data[value[0]] = value[1]
    elif what == "reload_ui":
        shared.state.request_restart()
    elif what == "attention":
        inside.spoil_attention(value)
    else:
        raise ValueError(what)


def on_app(_demo: Any, app: Any) -> None:
    """The probe's routes."""

    async def ask(request: Request) -> Any:
        import asyncio

        what, values = request.path_params["what"], await request.json()
        table = {
            "checksum": checksum, "condition": condition, "fail_at": fail_at, "captions": inside.captions,
            "prediction": inside.prediction, "gradients": gradients, "latents": inside.latents, "disturb": disturb,
            "opened": lambda: [opened.copy(), opened.clear()][0],
            "packages": packages, "small_captioners": lambda: small.install(), "captioners": lambda: small.state(),
        }  # fmt: skip
        return await asyncio.get_running_loop().run_in_executor(None, lambda: table[what](**values))

    app.add_api_route("/probe/{what}", ask, methods=["POST"])


def packages() -> list[str]:
    """What the WebUI's environment has."""
    from importlib.metadata import distributions

    return sorted(f"{found.metadata['Name']}=={found.version}" for found in distributions())


script_callbacks.on_app_started(on_app)
