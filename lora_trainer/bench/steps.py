"""The contestants: the bare forward pass, our training step, and the same step by diffusers and peft."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lora_trainer.bench.model import Batch, shared_copy
from lora_trainer.bench.plan import BenchPlan
from lora_trainer.dtypes import DTYPES
from lora_trainer.errors import ConfigError
from lora_trainer.hosts.standalone.model import DiffusersModel
from lora_trainer.network.network import LoraNetwork
from lora_trainer.seeds import torch_generator
from lora_trainer.training.checkpointing import checkpoint_blocks
from lora_trainer.training.inputs import StepInputs
from lora_trainer.training.objective import make_objective
from lora_trainer.training.precision import autocast, make_grad_scaler
from lora_trainer.training.step import make_update, training_step

Step = Callable[[int], None]  # of the number that decides noise and timestep


def forward_step(model: DiffusersModel, plan: BenchPlan) -> Step:
    """The bare UNet: no LoRA, no gradient."""
    batch = Batch.make(model, plan)

    def step(number: int) -> None:
        timesteps = torch.full((plan.batch,), 100 + number % 800, device=model.device)
        with torch.no_grad(), autocast(model.device, plan.precision):
            model.predict(batch.latents, timesteps, batch.conditioning, batch.sizes)

    return step


def our_step(model: DiffusersModel, plan: BenchPlan) -> Step:
    """A step of :func:`lora_trainer.training.loop.training_loop`, from cached latents and captions."""
    config, batch, device = plan.config, Batch.make(model, plan), model.device
    network = LoraNetwork.create(model.unet, [], model.info, config, seed=1).to(device)
    update = make_update(network.parameter_groups(config), config, config.optimizer.max_train_steps, device)
    objective = make_objective(model.info, model.alphas_cumprod, config.loss)
    blocks = model.blocks() if plan.checkpointing else []
    mean = batch.latents.cpu()

    def step(number: int) -> None:
        network.begin_step(1, number)
        draws = [objective.draw(image, torch.zeros_like(image), 1, number) for image in mean]
        inputs = StepInputs.of(draws, batch.conditioning, batch.sizes, None, [1.0] * plan.batch, device)
        with network, checkpoint_blocks(blocks), autocast(device, plan.precision):
            update.backward(training_step(model, inputs, objective), plan.batch)
        update.clip()
        update.apply()

    return step


def peer_step(model: DiffusersModel, plan: BenchPlan) -> Step:
    """The same step by diffusers' and peft's own means, on the same modules.

    Raises:
        ConfigError: if peft isn't installed.
    """
    try:
        from peft import LoraConfig
    except ImportError:
        raise ConfigError("The comparison needs the package peft; install it, or add --no-peer.") from None
    from diffusers import DDPMScheduler

    batch, device = Batch.make(model, plan), model.device
    unet: Any = shared_copy(model.unet)
    unet.add_adapter(
        LoraConfig(r=plan.rank, lora_alpha=plan.rank, init_lora_weights="gaussian", target_modules=targets(model, plan))
    )
    if plan.checkpointing:
        unet.enable_gradient_checkpointing()
        unet.train()
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.data = parameter.data.float()
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    scaler = make_grad_scaler(device, plan.precision)
    noising = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    weight_type = DTYPES[plan.precision]
    context = batch.conditioning.context.to(weight_type)
    added = None
    if batch.conditioning.pooled is not None:
        numbers = [[*size.original, *size.crop, *size.target] for size in batch.sizes]
        added = {
            "text_embeds": batch.conditioning.pooled.to(weight_type),
            "time_ids": torch.tensor(numbers, device=device).to(weight_type),
        }

    def step(number: int) -> None:
        generator = torch_generator("bench", "peer", number)
        noise = torch.randn(batch.latents.shape, generator=generator).to(device)
        timesteps = torch.randint(0, 1000, (plan.batch,), generator=generator).to(device)
        noisy = noising.add_noise(batch.latents, noise, timesteps).to(weight_type)
        with autocast(device, plan.precision):
            predicted = unet(noisy, timesteps, encoder_hidden_states=context, added_cond_kwargs=added).sample
            loss = nn.functional.mse_loss(predicted.float(), noise.float())
        scaler.scale(loss).backward()
        float(loss.detach())
        scaler.unscale_(optimizer) if scaler.is_enabled() else None
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        optimizer.zero_grad()

    return step


def targets(model: DiffusersModel, plan: BenchPlan) -> list[str]:
    """Paths of the UNet's modules that our network trains."""
    network = LoraNetwork.create(model.unet, [], model.info, plan.config, seed=1)
    wanted = {id(module.target.module) for module in network.modules}
    return [path for path, module in model.unet.named_modules() if id(module) in wanted]
