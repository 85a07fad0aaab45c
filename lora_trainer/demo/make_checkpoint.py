"""Make the embedded checkpoint from a seed: ``python -m lora_trainer.demo.make_checkpoint --output DIR``.

Draws its own data, trains an autoencoder, teaches a text encoder the world's words, trains a UNet with it, and writes
``tiny-world.safetensors`` (SD 1.x layout, fp16) with ``tiny-world.yaml``. Finished stages leave a file in ``--work``
and are skipped when it is there. While the UNet trains, the checkpoint so far is written every 500 steps; a smaller
number of steps put into the file ``steps`` in ``--work`` lets it come to an early, orderly end.

Runtime of the embedded file's stages on two cores of a 2.5 GHz Xeon (AVX-512, no AMX), torch 2.13, under a load of
6 to 14 from other jobs: autoencoder 27 min (one thread, 2,000 steps, 15.5 min of CPU time), table of latents 1 min,
words 3.5 min (600 steps), UNet 41 min (two processes, 2,400 steps; 0.8 s a step when it had the cores); 73 min in all.
The embedded file was made stage by stage by these functions with seed 0. Its UNet began with 4,000 steps in view, which
became 2,800 near step 1,460 and 2,400 near step 1,850 (`steps`, above), so a new run does not give the same bytes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from transformers import CLIPTokenizer

from lora_trainer.demo import CHECKPOINT, TOKENIZER
from lora_trainer.demo.export import write_checkpoint
from lora_trainer.demo.text import make_text_encoder, write_text_config, write_tokenizer
from lora_trainer.demo.unet import Captions, Table, make_table, teach_words, train_unet
from lora_trainer.demo.vae import TRAIN_EPSILON, make_vae, set_epsilon, train_vae


@dataclass(frozen=True)
class Plan:
    """What was asked on the command line."""

    output: Path
    work: Path
    seed: int
    vae_steps: int
    encoder_steps: int
    word_steps: int
    unet_steps: int
    drawings: int  # of each combination of words
    processes: int

    @property
    def facts(self) -> dict[str, str]:
        """For the file's metadata."""
        return {"seed": str(self.seed), "vae_steps": str(self.vae_steps), "word_steps": str(self.word_steps)}


def reporter() -> Callable[[str], None]:
    """Progress lines with the seconds since now."""
    start = time.monotonic()

    def report(line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - start:7.0f} s  {line}\n")

    return report


def keep(value: object, path: Path) -> None:
    """Save for later runs; the file is whole or not there."""
    temporary = path.with_suffix(".tmp")
    torch.save(value, temporary)
    temporary.replace(path)


def prepare(plan: Plan, report: Callable[[str], None]) -> None:
    """The stages before the UNet: vocabulary, autoencoder, table of latents, text encoder."""
    vae_file, table_file, text_file = (plan.work / f"{name}.pt" for name in ("vae", "table", "text"))
    if not (TOKENIZER / "vocab.json").exists():
        write_tokenizer(TOKENIZER)
    write_text_config(TOKENIZER)
    if not vae_file.exists():
        keep(train_vae(plan.vae_steps, plan.encoder_steps, plan.seed, report=report).state_dict(), vae_file)
    if not table_file.exists():
        vae = make_vae()
        vae.load_state_dict(torch.load(vae_file))
        set_epsilon(vae, TRAIN_EPSILON)
        table = make_table(vae, plan.drawings, plan.seed)
        mean, deviation = table.standardise()
        words = torch.from_numpy(table.words)
        keep({"latents": table.latents, "words": words, "mean": mean, "deviation": deviation}, table_file)
        report(f"table of {len(words)} latents")
    if not text_file.exists():
        encoder = make_text_encoder(plan.seed)
        captions = Captions(CLIPTokenizer.from_pretrained(TOKENIZER), np.random.default_rng(plan.seed))
        teach_words(encoder, captions, plan.word_steps, report)
        keep(encoder.state_dict(), text_file)


def train(rank: int, plan: Plan) -> None:
    """Train the UNet as one of several processes with a thread each; the first writes the checkpoints."""
    torch.set_num_threads(1)
    if plan.processes > 1:
        meeting = f"file://{(plan.work / 'meeting').resolve()}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=plan.processes)
    report = reporter()
    vae, encoder = make_vae(), make_text_encoder(plan.seed)
    vae.load_state_dict(torch.load(plan.work / "vae.pt"))
    encoder.load_state_dict(torch.load(plan.work / "text.pt"))
    saved = torch.load(plan.work / "table.pt")
    wish = plan.work / "steps"
    training = train_unet(
        Table(saved["latents"], saved["words"].numpy()),
        CLIPTokenizer.from_pretrained(TOKENIZER),
        encoder,
        plan.unet_steps,
        plan.seed,
        report=report if rank == 0 else lambda line: None,
        shorter=lambda: int(wish.read_text()) if wish.exists() else 0,
    )
    for step, unet in training:
        if rank == 0:
            facts = {**plan.facts, "unet_steps": str(step)}
            path = write_checkpoint(plan.output, vae, saved["mean"], saved["deviation"], unet, encoder, facts)
            report(f"wrote {path} at step {step}")
    if plan.processes > 1:
        dist.destroy_process_group()


def main(argv: list[str] | None = None) -> int:
    """Run the stages that are not done yet."""
    parser = argparse.ArgumentParser(prog="python -m lora_trainer.demo.make_checkpoint", description=__doc__)
    parser.add_argument("--output", type=Path, default=CHECKPOINT.parent, help="folder of the checkpoint")
    parser.add_argument("--work", type=Path, default=Path("build/demo"), help="folder of intermediate files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vae-steps", type=int, default=2000)
    parser.add_argument("--encoder-steps", type=int, default=1200, help="the encoder stays as it is after these")
    parser.add_argument("--word-steps", type=int, default=600)
    parser.add_argument("--unet-steps", type=int, default=2400)
    parser.add_argument("--drawings", type=int, default=6, help="of each combination of words")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that share the UNet's training")
    args = parser.parse_args(argv)
    plan = Plan(**vars(args))
    plan.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(plan.processes)
    prepare(plan, reporter())
    (plan.work / "meeting").unlink(missing_ok=True)
    if plan.processes > 1:
        mp.spawn(train, args=(plan,), nprocs=plan.processes)
    else:
        train(0, plan)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
