"""What a dataset file's settings of a subset mean, in words; one line says them all."""

from __future__ import annotations

from collections.abc import Iterator

from lora_trainer.config import OPTIONS
from lora_trainer.dataset.items import Folder
from lora_trainer.errors import counted, shown

_ON = {  # of what is switched on
    "flip_aug": "half of the images mirrored",
    "color_aug": "colours varied",
    "random_crop": "cropped at random",
    "alpha_mask": "transparent parts don't count",
    "masked_loss": "only what is white in a mask counts",
    "shuffle_caption": "tags shuffled",
    "enable_wildcard": "a random line of each caption",
}
_NUMBERS = {  # of what is set to a number above 0
    "keep_tokens": "tags kept in place: {:g}",
    "caption_dropout_rate": "{:.0%} without a caption",
    "caption_tag_dropout_rate": "{:.0%} of the tags left out",
    "caption_dropout_every_n_epochs": "no captions in every epoch that {:g} divides",
    "token_warmup_step": "more tags from step to step until {:g}",
    "validation_split": "{:.0%} held out",
}
_TEXTS = {
    "caption_prefix": "captions begin with “{}”",
    "caption_suffix": "captions end with “{}”",
    "keep_tokens_separator": "tags before “{}” kept in place",
    "caption_separator": "tags separated by “{}”",
    "secondary_separator": "“{}” joins tags",
    "caption_extension": "{} files",
}


def in_words(folder: Folder) -> str:
    """What is said of a subset beside its images and repeats, such as ``768x768 px, batches of 2, tags shuffled``."""
    width, height = folder.config.resolution
    size = f"{width}x{height} px{'' if folder.config.enable_bucket else ', one shape'}"
    return shown(", ".join([size, f"batches of {counted(folder.config.train_batch_size, 'image')}", *_more(folder)]))


def _more(folder: Folder) -> Iterator[str]:
    for words in (_ON, _NUMBERS, _TEXTS):
        for name, text in words.items():
            value = getattr(folder.config if hasattr(folder.config, name) else folder.caption, name)
            if value and value != OPTIONS[name].default:
                yield text.format(value)
