"""The options of the images: at which size, how they are varied, and which of them are held out."""

from __future__ import annotations

from dataclasses import dataclass

from lora_trainer.config.groups import Group, option


@dataclass(frozen=True)
class DatasetConfig(Group):
    """Images, resolution and buckets."""

    reg_data_dir: str = option("", "Folder of regularisation images, laid out as <repeats>_<class>; empty for none.")
    resolution: tuple[int, int] = option(
        (512, 512), "Training resolution: width,height or one number; buckets keep its area.", minimum=64, unit="px"
    )
    extra_resolutions: str = option(
        "",
        "Multi-resolution training: smaller sizes at which each image is trained as well, such as 384,256; for each of "
        "them an epoch has as many steps more. Not with a dataset file, whose datasets have their own.",
    )
    train_batch_size: int = option(1, "Images per batch; with several GPUs, on each of them.", minimum=1)
    enable_bucket: bool = option(True, "Sort images into buckets by aspect ratio instead of cropping all to one shape.")
    min_bucket_reso: int = option(256, "Shortest bucket side; used if bucket_no_upscale is off.", minimum=64, unit="px")
    max_bucket_reso: int = option(2048, "Longest bucket side; used if bucket_no_upscale is off.", minimum=64, unit="px")
    bucket_reso_steps: int = option(
        64, "Bucket sides are multiples of this: 64, or 32 for SDXL.", minimum=8, multiple=8, unit="px"
    )
    bucket_no_upscale: bool = option(True, "Never enlarge a small image to fill its bucket.")
    flip_aug: bool = option(False, "Mirror half of the images at random; not for faces or lettering.")
    color_aug: bool = option(False, "Vary hue and gamma slightly at random; needs cache_latents off.")
    random_crop: bool = option(False, "Crop at a random place instead of the centre; needs cache_latents off.")
    alpha_mask: bool = option(False, "Masked loss: the transparent parts of an image don't count towards the loss.")
    masked_loss: bool = option(
        False,
        "Masked loss: only what is white in an image's mask counts. That is NAME-masklabel.png beside it, or in a "
        "dataset file's conditioning_data_dir; an image without one counts as a whole.",
    )
    resize_interpolation: str = option(
        "",
        "How images are resized: empty for the area's mean where both sides shrink, and Lanczos elsewhere; all but "
        "nearest take in every pixel of an image that shrinks.",
        choices=("", "area", "box", "lanczos", "bicubic", "cubic", "bilinear", "linear", "nearest"),
    )
    prior_loss_weight: float = option(1.0, "Weight of the regularisation images in the loss.", minimum=0.0)
    validation_split: float = option(
        0.0,
        "Held-out images: this share isn't trained on, and what is learned of it is drawn beside the rest; from 12 "
        "images on, 0 for none.",
        minimum=0.0, maximum=0.5,
    )  # fmt: skip
    validation_seed: int = option(0, "Which images are held out; with the same number, always the same.", minimum=0)

    @property
    def resolutions(self) -> list[tuple[int, int]]:
        """(width, height) of all sizes that images are trained at, the largest first.

        Raises:
            ValueError: if ``extra_resolutions`` isn't a list of whole numbers.
        """
        sides = {int(side) for side in self.extra_resolutions.replace(",", " ").split()}
        return [self.resolution, *((side, side) for side in sorted(sides, reverse=True))]
