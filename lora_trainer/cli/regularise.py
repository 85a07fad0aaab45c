"""``regularise``"""

from __future__ import annotations

import argparse
from pathlib import Path

from lora_trainer.cli.terminal import ProgressBar, say, status_after, stop_on_signals
from lora_trainer.dataset.regularisation import make_images, sentence, suggested, wanted
from lora_trainer.training.events import CancelToken


def run_regularise(args: argparse.Namespace) -> int:
    """Make regularisation images for a dataset; Ctrl-C keeps what was made, and the same command goes on."""
    from lora_trainer.hosts.standalone.host import DiffusersHost

    number = args.images or suggested(args.dataset)
    plan = wanted(args.output, args.class_word, args.checkpoint, number, args.subject)
    token, bar, done = CancelToken(), ProgressBar(), 0
    with stop_on_signals(token) as came:
        host = DiffusersHost(args.checkpoint, Path(args.output) / "lora", vae=args.vae)
        for made in make_images(host, plan, lambda: token.cancelled):
            done = made.done
            bar.update("Regularisation image", done, made.total)
        bar.clear()
    say(sentence(plan, done))
    say(f'To train with them: --set reg_data_dir="{plan.folder}"')
    return status_after(came)
