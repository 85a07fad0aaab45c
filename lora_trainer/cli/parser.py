"""Commands and options. Nothing heavy is imported here: ``--help`` must be instant."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lora_trainer import __version__
from lora_trainer.cli.arguments import (
    Parser,
    add_set,
    add_train_options,
    count,
    file,
    folder,
    given,
    new_command,
    side,
)  # fmt: skip
from lora_trainer.cli.image_parser import add_crop, add_preview, add_rotate
from lora_trainer.cli.lora_parser import add_lora
from lora_trainer.cli.run_parser import add_queue, add_runs

SUBJECT = "the kind of subject: person, character, style, object or concept"
DESCRIPTION = "Train a LoRA on a Stable Diffusion checkpoint and test it."


def build_parser() -> Parser:
    """The parser of all commands; the parsed arguments' ``run`` does the work."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show log messages and full error traces")
    parser = Parser(prog="python -m lora_trainer", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        _demo, _train, _test, add_runs, add_queue, add_lora, _check, _prepare, _caption, _regularise,
        add_preview, add_crop, add_rotate, _config, _bench, _ui,
    ):  # fmt: skip
        add(commands, common)
    return parser


def _demo(commands: Any, common: Any) -> None:
    command = new_command(
        commands, common, "demo", "demo.run_demo",
        "train a LoRA on the embedded checkpoint, test it and write a report (about 3 minutes)",
    )  # fmt: skip
    command.add_argument(
        "--output", type=folder, default=Path("demo-output"), metavar="DIR", help="default: demo-output"
    )


def _train(commands: Any, common: Any) -> None:
    command = new_command(
        commands, common, "train", "train.run_train", "train a LoRA",
        "Ctrl-C stops and saves (exit status 0); a second Ctrl-C doesn't wait for the step (130). "
        "A kohya file given with --config may "
        "also name the checkpoint, the dataset, the LoRA and its folder; options given here take precedence.",
    )  # fmt: skip
    add_train_options(command)


def _test(commands: Any, common: Any) -> None:
    command = new_command(
        commands, common, "test", "evaluate.run_test",
        "test a LoRA: images at several strengths, in other contexts and from its saved epochs, as one report",
    )  # fmt: skip
    command.add_argument("lora", type=Path, metavar="LORA_FILE", help="the LoRA's .safetensors file")
    command.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="the base model")
    command.add_argument("--vae", type=Path, metavar="FILE", help="take the VAE from this file")
    command.add_argument("--strengths", type=given, metavar="0,0.4,…", help="default: 0,0.2,… 1.4")
    command.add_argument(
        "--prompts", type=file, metavar="FILE",
        help="other contexts, one prompt per line; {trigger} and {lora} are filled in; --n --s --l as in sd-scripts",
    )  # fmt: skip
    command.add_argument("--trigger", help="the trigger word; default: the one in the LoRA's card or metadata")
    command.add_argument("--seeds", type=int, nargs="+", metavar="N", help="default: 1 2")
    command.add_argument("--steps", type=count, metavar="N", help="sampling steps; default: 20")
    command.add_argument(
        "--size", metavar="W,H", help="image size; default: the LoRA's training resolution, else the model's"
    )
    command.add_argument(
        "--subject", metavar="KIND", help="person, character, object, style or concept: what the test asks for"
    )
    command.add_argument(
        "--resume", action="store_true", help="go on with a test that was stopped, with the settings it was begun with"
    )
    command.add_argument("--no-epochs", action="store_true", help="don't test the saved epochs")
    command.add_argument("--no-measures", action="store_true", help="make the images only, without a verdict")
    command.add_argument(
        "--output", type=folder, metavar="DIR", help="folder for reports, each in OUTPUT/NAME; default: output"
    )


def _check(commands: Any, common: Any) -> None:
    command = new_command(
        commands, common, "check", "dataset.run_check",
        "check a dataset: whether it is fit to train on, what it holds and what is wrong with it",
    )  # fmt: skip
    command.add_argument("dataset", type=Path, metavar="DATASET_DIR", help="its folder, or sd-scripts' dataset file")
    command.add_argument(
        "--config", type=Path, metavar="FILE.json", help="a settings file, for its bucket and caption options"
    )
    add_set(command)
    command.add_argument("--subject", default="", metavar="KIND", help=SUBJECT)
    command.add_argument(
        "--trigger", default="", metavar="WORD", help="the trigger word; default: the words of each folder's name"
    )
    command.add_argument(
        "--output", type=folder, default=Path("output"), metavar="DIR",
        help="the folder that remembers what was seen, so that a second check is fast; default: output",
    )  # fmt: skip
    command.add_argument(
        "--fix", nargs="*", metavar="KIND",
        help="put right what can be, or only these kinds of findings; lists what it will do, and asks; nothing is "
        "deleted",
    )  # fmt: skip
    command.add_argument("--yes", action="store_true", help="with --fix: don't ask")
    command.add_argument("--undo", action="store_true", help="take the last --fix back")
    command.add_argument("--json", action="store_true", help="print JSON")


def _prepare(commands: Any, common: Any) -> None:
    command = new_command(
        commands, common, "prepare", "dataset.run_prepare",
        "copy photos into a <repeats>_<trigger> folder: upright, in sRGB, without duplicates; originals stay untouched",
    )  # fmt: skip
    command.add_argument("source", type=Path, metavar="SOURCE_DIR", help="the folder with the photos")
    command.add_argument("dataset", type=folder, metavar="DATASET_DIR", help="gets the <repeats>_<trigger> folder")
    command.add_argument("--trigger", required=True, metavar="WORD", help="calls the subject in a prompt")
    command.add_argument("--subject", required=True, metavar="KIND", help=SUBJECT)
    command.add_argument("--repeats", type=count, metavar="N", help="default: as suits the number of images")
    command.add_argument(
        "--crop", action="store_true", help="crop each copy to what is probably its subject; 'crop' changes that"
    )
    command.add_argument(
        "--output", type=folder, default=Path("output"), metavar="DIR",
        help="the folder that remembers what was seen of images; default: output",
    )  # fmt: skip


def _caption(commands: Any, common: Any) -> None:
    command = new_command(
        commands, common, "caption", "captions.run_caption",
        "show the captions of a dataset, change many at once, or have them written",
        "Without a change, all captions are listed; one in parentheses is that of the folder's name.",
    )  # fmt: skip
    command.add_argument("dataset", type=Path, metavar="DATASET_DIR")
    command.add_argument("--tags", action="store_true", help="list the tags, the most frequent first")
    command.add_argument("--prefix", metavar="WORDS", help="put these before every caption that doesn't begin so")
    command.add_argument("--append", metavar="WORDS", help="put these at the end of every caption")
    command.add_argument("--replace", nargs=2, metavar=("WORDS", "INSTEAD"), help="replace words in every caption")
    command.add_argument("--remove", metavar="TAG", help="remove a tag")
    command.add_argument("--first", metavar="TAG", help="bring a tag to the front where a caption has it")
    command.add_argument(
        "--leave-out", metavar="KIND",
        help="remove what belongs to a person, a character or a style, such as the colour of the hair",
    )  # fmt: skip
    command.add_argument(
        "--metadata", type=Path, metavar="FILE.json",
        help="write the captions and tags that a metadata file of sd-scripts' fine-tuning has for the images",
    )  # fmt: skip
    command.add_argument("--undo", action="store_true", help="take the last change back")
    command.add_argument(
        "--output", type=folder, default=Path("output"), metavar="DIR",
        help="the folder that keeps what was changed, for --undo; default: output",
    )  # fmt: skip
    group = command.add_argument_group("automatic captions, and those of a metadata file")
    group.add_argument("--captioner", metavar="NAME", help="describe the images with blip, florence-2 or wd14")
    group.add_argument(
        "--captioner-model",
        type=Path,
        metavar="DIR",
        help="the folder with the captioner's model; nothing is downloaded",
    )
    group.add_argument(
        "--existing", choices=("skip", "append", "replace"), default="skip",
        help="what becomes of captions that are there; default: skip, which leaves them",
    )  # fmt: skip
    group.add_argument("--overwrite", action="store_true", help="with replace: those written or edited by hand, too")
    group.add_argument("--trigger", default="", metavar="WORD", help="default: the words of each folder's name")
    group.add_argument("--subject", default="", metavar="KIND", help=f"{SUBJECT}; what belongs to it is left out")
    group.add_argument("--threshold", type=float, metavar="P", help="least probability of a tag; default: 0.35")
    group.add_argument("--deny", default="", metavar="TAGS", help="tags that are left out, with commas between them")


def _regularise(commands: Any, common: Any) -> None:
    command = new_command(
        commands, common, "regularise", "regularise.run_regularise",
        "make regularisation images: a checkpoint's own images of the class, each with its prompt",
        "Ctrl-C keeps what was made; the same command goes on.",
    )  # fmt: skip
    command.add_argument("dataset", type=Path, metavar="DATASET_DIR")
    command.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="the base model")
    command.add_argument("--vae", type=Path, metavar="FILE", help="take the VAE from this file")
    command.add_argument(
        "--class", dest="class_word", required=True, metavar="WORD", help="what the subject is, such as woman or dog"
    )
    command.add_argument("--images", type=count, metavar="N", help="default: images × repeats, as an epoch uses")
    command.add_argument("--subject", default="", metavar="KIND", help=SUBJECT)
    command.add_argument(
        "--output", type=folder, default=Path("output"), metavar="DIR",
        help="the images go to OUTPUT/regularisation; default: output",
    )  # fmt: skip


def _config(commands: Any, common: Any) -> None:
    command: Parser = commands.add_parser(
        "config",
        help="convert settings files; list options and presets",
        description="convert settings files; list options and presets",
    )
    actions = command.add_subparsers(title="actions", metavar="ACTION", required=True)
    convert = new_command(
        actions, common, "convert", "settings.run_convert",
        "convert kohya's JSON to this program's, or back; or a dataset to sd-scripts' dataset file",
    )  # fmt: skip
    convert.add_argument("source", type=Path, metavar="IN")
    convert.add_argument("target", type=Path, metavar="OUT")
    convert.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    options = new_command(actions, common, "options", "settings.run_options", "list all options")
    options.add_argument("--json", action="store_true", help="print JSON")
    presets = new_command(actions, common, "presets", "settings.run_presets", "list the presets, and what each is for")
    presets.add_argument("--json", action="store_true", help="print JSON")


def _bench(commands: Any, common: Any) -> None:
    command = new_command(
        commands, common, "bench", "benchmark.run_bench_command",
        "measure time and memory of a training step, compared with plain diffusers + peft",
    )  # fmt: skip
    command.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="default: a UNet with random weights, as large as SD 1.5's"
    )
    command.add_argument(
        "--suite",
        action="store_true",
        help="SD 1.5, SD 2.1 and SDXL at their true sizes: memory counted, and time and memory measured on a GPU",
    )
    command.add_argument(
        "--size", choices=("sd15", "sd21", "sdxl", "small", "tiny"), default="sd15", help="size of the random UNet"
    )
    command.add_argument("--resolution", type=side, default=256, metavar="PIXELS", help="default: 256")
    command.add_argument("--batch", type=count, default=1, metavar="N", help="default: 1")
    command.add_argument("--rank", type=count, default=16, metavar="N", help="default: 16")
    command.add_argument("--steps", type=count, default=5, metavar="N", help="number of timed steps; default: 5")
    command.add_argument("--precision", choices=("no", "fp16", "bf16"), default="no", help="default: no (fp32)")
    command.add_argument("--checkpointing", action="store_true", help="use gradient checkpointing")
    command.add_argument("--no-peer", action="store_true", help="don't measure diffusers + peft")
    command.add_argument("--json", action="store_true", help="print JSON")


def _ui(commands: Any, common: Any) -> None:
    command = new_command(
        commands, common, "ui", "ui.run_ui", "serve the Train LoRA page without a WebUI",
    )  # fmt: skip
    command.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="default: the embedded checkpoint, for practice"
    )
    command.add_argument(
        "--lora-dir", type=folder, default=Path("models/Lora"), metavar="DIR", help="default: models/Lora"
    )
    command.add_argument("--output", type=folder, default=Path("output"), metavar="DIR", help="default: output")
    command.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1, this machine only"
    )
    command.add_argument(
        "--without-login", action="store_true",
        help="with --host: anyone who can reach the page may train and read folders",
    )  # fmt: skip
    command.add_argument("--port", type=int, metavar="N", help="default: the first free port from 7870")
