"""Prior preservation without images: differential output preservation (https://github.com/kohya-ss/sd-scripts/pull/1710).

Beside its own loss, every image whose caption holds the trigger word has a second one: with the class word in place of
the trigger word, the model with the LoRA should predict what it predicts without. So the LoRA learns the trigger word
and leaves the class as it was.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from lora_trainer.dataset.batches import Batch
    from lora_trainer.training.inputs import StepInputs
    from lora_trainer.training.session import Session


def preserve(run: Session, inputs: StepInputs, mine: Batch, images: int) -> None:
    """Add the gradients of the second loss, if there is one. Inside the step's hooks, after the first one's."""
    if run.feed.classes is None:
        return
    losses = preservation_losses(run, inputs, mine)
    if losses is not None:
        run.update.backward(losses * run.config.loss.diff_output_preservation, images)


def preservation_losses(run: Session, inputs: StepInputs, mine: Batch) -> Tensor | None:
    """The second loss of every image, [B]: 0 without the trigger word in the caption; None if no image has one.

    Where the text encoders are trained, the base model has its own idea of the captions.
    """
    feed, at = run.feed, run.position
    classes = feed.class_texts(mine, at.epoch, at.step)
    if not any(text is not None for text in classes):
        return None
    texts = [
        own if text is None else text for text, own in zip(classes, feed.texts(mine, at.epoch, at.step), strict=True)
    ]
    noisy = run.objective.noisy(inputs)

    def predicted() -> Tensor:
        ours = replace(inputs, conditioning=feed.encode(texts))
        return run.model.predict(noisy, ours.timesteps, ours.conditioning, ours.sizes).float()

    with torch.no_grad(), run.network.left_out():
        target = predicted()
    losses = (predicted() - target).square().mean(dim=(1, 2, 3))
    return losses * torch.tensor([float(text is not None) for text in classes], device=losses.device)
