"""The parsers of the commands for single images of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_trainer.cli.arguments import add_preset, add_set, count, folder, new_command


def add_preview(commands: Any, common: Any) -> None:
    """``preview``"""
    command = new_command(
        commands, common, "preview", "images.run_preview", "show an image of a dataset as training sees it",
        "Its bucket, what is cut off, and its first uses in a run: mirrored, cropped, masked, and with its caption "
        "as it is shuffled or dropped. They are written side by side into one file.",
    )  # fmt: skip
    command.add_argument("dataset", type=Path, metavar="DATASET_DIR")
    command.add_argument("image", metavar="IMAGE", help="its name, or <folder>/<name>")
    command.add_argument("--config", type=Path, metavar="FILE.json", help="a settings file")
    add_preset(command)
    add_set(command)
    command.add_argument("--uses", type=count, default=4, metavar="N", help="how many, where they differ; default: 4")
    command.add_argument(
        "--output", type=folder, default=Path("output"), metavar="DIR",
        help="the file goes to OUTPUT/previews; default: output",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(checkpoint=None)


def add_rotate(commands: Any, common: Any) -> None:
    """``rotate``"""
    command = new_command(
        commands, common, "rotate", "images.run_rotate", "rotate copies that 'prepare' has made, clockwise",
        "For photos that have lost the mark of how the camera was held. A crop and masks turn with the image. The "
        "photos stay as they are.",
    )  # fmt: skip
    command.add_argument("dataset", type=Path, metavar="DATASET_DIR")
    command.add_argument("images", nargs="+", metavar="IMAGE", help="names, or <folder>/<name>")
    command.add_argument("--degrees", type=int, choices=(90, 180, 270), default=90, help="clockwise; default: 90")


def add_crop(commands: Any, common: Any) -> None:
    """``crop``"""
    command = new_command(
        commands, common, "crop", "images.run_crop", "crop copies that 'prepare' has made, or undo that",
        "Without a change, each copy is listed with its crop. Crops are cut out of the photo itself "
        "as long as that is there, and fitted to the shape of a bucket. The photos stay as they are.",
    )  # fmt: skip
    command.add_argument("dataset", type=Path, metavar="DATASET_DIR")
    command.add_argument("images", nargs="*", metavar="IMAGE", help="names, or <folder>/<name>; default: all")
    command.add_argument("--box", metavar="L,T,R,B", help="left, top, right and bottom as shares: 0.1,0,0.9,1")
    command.add_argument("--suggest", action="store_true", help="crop to what is probably the subject")
    command.add_argument("--undo", action="store_true", help="put the copies back as they were before their crop")
    command.add_argument("--config", type=Path, metavar="FILE.json", help="a settings file, for its bucket options")
    add_set(command)
