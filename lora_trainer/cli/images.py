"""``preview``, ``crop`` and ``rotate``"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lora_trainer.cli.settings import read_settings
from lora_trainer.cli.terminal import say
from lora_trainer.dataset.checks.looks import FILE, Looks
from lora_trainer.dataset.copies import read_record
from lora_trainer.dataset.crops import crop, crop_of, crop_to_subject, obstacle, uncrop
from lora_trainer.dataset.folders import scan, training_folders
from lora_trainer.dataset.preview import Preview, preview, sheet
from lora_trainer.dataset.rotation import rotate
from lora_trainer.dataset.subject import box_of
from lora_trainer.errors import ConfigError, FileError, counted, quoted, shown
from lora_trainer.files import replaced

PREVIEWS = "previews"  # in the output folder


def run_preview(args: argparse.Namespace) -> None:
    """Show how an image is trained."""
    config, _, notices = read_settings(args)
    with Looks(args.output / FILE, config.dataset.resolution) as looks:
        dataset = scan(args.dataset, config.dataset, config.caption, size_of=looks.size)
    seen = preview(dataset, args.image, config, args.uses)
    target = args.output / PREVIEWS / f"{seen.item.folder.path.name}-{seen.item.path.stem}.png"
    with replaced(target) as temporary:
        sheet(seen).save(temporary, "PNG")
    if args.json:
        facts = seen.to_dict()
        uses = [{key: use[key] for key in use if key not in ("picture", "mask")} for use in facts["uses"]]
        say(json.dumps({**facts, "uses": uses, "file": shown(target)}, indent=2))
        return
    for line in [*notices, *seen.lines(), *_uses(seen), f"Written: {shown(target)}"]:
        say(line)


def _uses(seen: Preview) -> list[str]:
    return [
        f"  epoch {use.epoch}, step {use.step + 1}: {'mirrored, ' if use.flip else ''}"
        + (f'"{shown(use.caption)}"' if use.caption else "no caption")
        + (f', of which "{shown(use.cut)}" isn\'t seen' if use.cut else "")
        for use in seen.uses
    ]


def run_crop(args: argparse.Namespace) -> None:
    """Crop copies, undo that, or say how they are cropped."""
    if sum((args.box is not None, args.suggest, args.undo)) > 1:
        raise ConfigError("Give one of --box, --suggest and --undo.")
    if args.box is not None and not args.images:
        raise ConfigError("Which image? --box is for one image, or for those that are named.")
    config, _, _ = read_settings(args)
    images = _named(args.dataset, args.images)
    if args.box is not None:
        box = box_of(args.box)
        for image in images:
            say(f"{shown(crop(image, box, config.dataset))}: cropped; --undo takes that back.")
    elif args.suggest:
        problems = [problem for image in images if (problem := obstacle(image))]
        number = sum(crop_to_subject(image, config.dataset) for image in images if not obstacle(image))
        for problem in problems:
            say(problem)
        say(f"{counted(number, 'image')} of {len(images)} cropped to the subject; --undo takes that back.")
    elif args.undo:
        number = sum(crop_of(image) is not None and bool(uncrop(image)) for image in images)
        say(f"{counted(number, 'image')} put back as before the crop.")
    else:
        for image in images:
            found = crop_of(image)
            how = "whole" if found is None else f"cropped to {','.join(f'{side:.3g}' for side in found)}"
            say(shown(f"{image.parent.name}/{image.name}: {how}"))


def run_rotate(args: argparse.Namespace) -> None:
    """Rotate copies."""
    for image in _named(args.dataset, args.images):
        back = f"--degrees {360 - args.degrees} takes that back"
        say(f"{shown(rotate(image, args.degrees))}: rotated by {args.degrees} degrees; {back}.")


def _named(dataset: Path, names: list[str]) -> list[Path]:
    """The images of a dataset by their names, or all of them."""
    images = [image for _, _, listing in training_folders(dataset) for image in listing.images]
    if not names:  # somebody's own files beside the copies keep nobody from cropping those
        copies = {folder: read_record(folder) for folder in {image.parent for image in images}}
        return [image for image in images if shown(image.stem) in copies[image.parent]] or images
    found = []
    for name in names:
        same = [image for image in images if name in (shown(image.name), shown(f"{image.parent.name}/{image.name}"))]
        if len(same) != 1:
            what = "Several folders have an image" if same else "There is no image"
            raise FileError(f"{what} {quoted(name)} in {dataset}; give <folder>/<name>.")
        found += [image for image in same if image not in found]
    return found
