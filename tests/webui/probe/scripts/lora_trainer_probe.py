"""Test only: lets the suite see and disturb what is inside the WebUI. Never part of the extension."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from fastapi import Request
from modules import devices, lowvram, script_callbacks, scripts, sd_hijack, sd_models, sd_unet, shared

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
    sd_models.read_state_dict = _noting(sd_models.read_state_dict)
opened = sys._lora_trainer_probe


ARCHITECTURES = Path(scripts.basedir()) / "architectures"
if ARCHITECTURES.is_dir():  # of the tiny checkpoints; the model is loaded after the scripts
    import open_clip

    open_clip.add_model_config(ARCHITECTURES)


def checksum() -> dict[str, str]:
    """SHA-256 over every weight and buffer of each part of the model, with devices and formats."""
    model = shared.sd_model
    parts = {"unet": model.model, "vae": model.first_stage_model, "text": model.cond_stage_model}
    sums = {}
    for name, part in parts.items():
        digest = hashlib.sha256()
        for key, tensor in sorted(part.state_dict().items()):
            digest.update(f"{key} {tensor.dtype} {tensor.device} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        sums[name] = digest.hexdigest()
    return sums


def condition() -> dict[str, Any]:
    """Everything that a trainer may have left changed."""
    model = shared.sd_model
    roots = (model.model, model.first_stage_model, model.cond_stage_model)
    modules = [module for root in roots for module in root.modules()]
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in modules)
    return {
        "requires_grad": sum(p.requires_grad for root in roots for p in root.parameters()),
        "gradients": sum(p.grad is not None for root in roots for p in root.parameters()),
        "training": sum(module.training for module in modules),
        "hooks": hooks,
        "own_forwards": sum("forward" in vars(module) for module in modules),
        "parallel": shared.parallel_processing_allowed,
        "hypernetworks": [repr(one) for one in shared.loaded_hypernetworks],
        "circular": sd_hijack.model_hijack.circular_enabled,
        "padding": sorted({str(getattr(module, "padding_mode", "")) for module in modules}),
        "attention": str(getattr(sd_hijack.current_optimizer, "name", None)),
        "unet_option": str(sd_unet.current_unet_option),
        "merged_tokens": getattr(model, "applied_token_merged_ratio", 0),
        "reload": sd_models.reload_model_weights.__module__,
        "restart": "request_restart" in vars(shared.state),
        "state": {key: getattr(shared.state, key) for key in ("skipped", "interrupted", "job", "job_count")},
        "rng": hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest(),
        "history": shared.cmd_opts.no_prompt_history,
        "checkpoint": model.sd_checkpoint_info.name,
        "options": {key: shared.opts.data.get(key) for key in ("sd_model_checkpoint", "sd_vae", "sd_lora", "sd_unet")},
        "dtype_vae": str(devices.dtype_vae),
        "on_gpu": str(lowvram.module_in_gpu),
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


def captions(texts: list[str], length: int, clip_skip: int) -> dict[str, Any]:
    """The same texts through our encoding and through the WebUI's prompt encoder."""
    from modules.call_queue import queue_lock

    from lora_trainer.hosts.a1111 import text

    model = shared.sd_model
    with queue_lock, torch.no_grad(), devices.autocast():
        ours = text.encode_captions(model, texts, length, clip_skip)
        before = shared.opts.data.get("CLIP_stop_at_last_layers", 1)
        shared.opts.data["CLIP_stop_at_last_layers"] = clip_skip
        try:
            theirs = model.get_learned_conditioning(texts)
        finally:
            shared.opts.data["CLIP_stop_at_last_layers"] = before
    if isinstance(theirs, dict):
        pooled = ours.pooled - theirs["vector"][:, : ours.pooled.shape[1]]
        theirs, extra = theirs["crossattn"], float(pooled.abs().max())
    else:
        extra = 0.0
    same = theirs.shape == ours.context.shape
    difference = float((theirs - ours.context).abs().max()) if same else None
    return {"ours": list(ours.context.shape), "theirs": list(theirs.shape), "difference": difference, "pooled": extra}


def prediction() -> float:
    """How far our call of the UNet is from the one that sampling makes."""
    from modules.call_queue import queue_lock
    from modules.prompt_parser import SdConditioning

    from lora_trainer.hosts.a1111.model import A1111Model
    from lora_trainer.hosts.base import SizeConditioning

    model = shared.sd_model
    with queue_lock:
        taken = A1111Model(model, lambda request: None)
        try:
            generator = torch.Generator().manual_seed(3)
            x = torch.randn(2, 4, 8, 8, generator=generator)
            steps = torch.tensor([5, 700])
            with torch.no_grad(), devices.autocast():
                ours = taken.predict(
                    x,
                    steps,
                    taken.encode_captions(["a red ball", "blue"], 75, 1),
                    [SizeConditioning((64, 96), (0, 0), (64, 96))] * 2,
                )
                theirs = model.get_learned_conditioning(SdConditioning(["a red ball", "blue"], width=96, height=64))
                condition = theirs if isinstance(theirs, dict) else {"c_crossattn": [theirs]}
                wanted = model.apply_model(x.to(devices.device), steps.to(devices.device), condition)
        finally:
            taken.close()
    return float((ours - wanted.float()).abs().max())


def latents() -> float:
    """How far our moments are from the WebUI's own encoding of an image (mean; its sample minus its noise)."""
    from modules.call_queue import queue_lock

    from lora_trainer.hosts.a1111 import vae

    model = shared.sd_model
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with queue_lock, torch.no_grad():
        mean, std = vae.latent_moments(model, image, lambda module: None)
        torch.manual_seed(0)
        sample = model.get_first_stage_encoding(model.encode_first_stage(image.to(devices.device, devices.dtype_vae)))
        torch.manual_seed(0)
        noise = torch.randn(mean.shape)
    return float((mean + std * noise - sample).abs().max())


def disturb(what: str, value: Any) -> None:
    """Bring the WebUI into a state that training has to neutralise."""
    if what == "tiling":
        sd_hijack.model_hijack.apply_circular(value)
    elif what == "hypernetwork":
        shared.loaded_hypernetworks[:] = [value] if value else []
    elif what == "option":
        shared.opts.data[value[0]] = value[1]
    elif what == "reload_ui":
        shared.state.request_restart()
    elif what == "attention":
        from modules import sd_hijack_optimizations

        class Dead(sd_hijack_optimizations.SdOptimizationSdp):
            name, label, cmd_opt, priority = "dead", "no gradients", None, 0

            def apply(self) -> None:
                super().apply()
                import ldm.modules.attention
                import sgm.modules.attention

                for holder in (ldm.modules.attention.CrossAttention, sgm.modules.attention.CrossAttention):
                    forward = holder.forward

                    def detached(self: Any, *a: Any, _forward: Any = forward, **k: Any) -> Any:
                        return _forward(self, *a, **k).detach()

                    holder.forward = detached

        if value:
            sd_hijack.optimizers.append(Dead())
            sd_hijack.model_hijack.apply_optimizations("dead - no gradients")
        else:
            sd_hijack.optimizers[:] = [one for one in sd_hijack.optimizers if one.name != "dead"]
            sd_hijack.model_hijack.apply_optimizations()
    else:
        raise ValueError(what)


def on_app(_demo: Any, app: Any) -> None:
    """The probe's routes."""

    async def ask(request: Request) -> Any:
        import asyncio

        what, values = request.path_params["what"], await request.json()
        table = {
            "checksum": checksum, "condition": condition, "fail_at": fail_at, "captions": captions,
            "prediction": prediction, "latents": latents, "disturb": disturb,
            "opened": lambda: [opened.copy(), opened.clear()][0],
            "packages": packages,
        }  # fmt: skip
        return await asyncio.get_running_loop().run_in_executor(None, lambda: table[what](**values))

    app.add_api_route("/probe/{what}", ask, methods=["POST"])


def packages() -> list[str]:
    """What the WebUI's environment has."""
    from importlib.metadata import distributions

    return sorted(f"{found.metadata['Name']}=={found.version}" for found in distributions())


script_callbacks.on_app_started(on_app)
