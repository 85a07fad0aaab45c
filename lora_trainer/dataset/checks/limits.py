"""What each measure says: its limit, and where that comes from. ``docs/checks.md`` shows this table."""

from __future__ import annotations

from dataclasses import dataclass

CASES = "labelled cases"  # tests/labelled: chosen on one half of the photographs, reported on the other
OURS = "our choice"


@dataclass(frozen=True)
class Limit:
    """A limit of a measure."""

    measure: str
    value: float
    unit: str
    source: str


BLUR = Limit("blur where the image is sharpest (Crété et al. 2007)", 0.35, "", CASES)
TOO_DARK = Limit("brightness that only 1 % of the pixels exceed", 0.40, "of white", CASES)
TOO_BRIGHT = Limit("pixels with a channel at its end", 0.32, "of the image", CASES)
WASHED_OUT = Limit("brightness that only 5 % of the pixels are below", 0.55, "of white", CASES)
ON_WHITE = Limit("white pixels along the outline of an object before white", 0.90, "of the outline", CASES)
BORDER = Limit("stripe of one colour along a side", 0.02, "of the side", CASES)
TWINS = Limit("correlation with the best window of another image", 0.96, "", CASES)
OTHER_COLOUR = Limit("difference of colour from that window, at which it is another thing", 18, "of 255", CASES)
INSIDE = Limit("correlation of what both show before a plain background", 0.8, "", OURS)
MASK = Limit("pixels that are black or white", 0.97, "of the image", OURS)
JPEG = Limit("JPEG quality by the quantisation table", 50, "of 100", OURS)
SMALL = Limit("pixels, compared with the training resolution", 0.80, "of its area", OURS)
TINY = Limit("pixels, compared with the training resolution", 0.25, "of its area: half of each side", OURS)
CUT = Limit("what the bucket's crop cuts off", 0.15, "of the image", OURS)
ODD = Limit("distance from the most similar images, against what is usual", 10, "median deviations", CASES)
SAME = Limit("difference of the colours along the rim from those that nearly all images have", 0.65, "", CASES)
ONE_BACKGROUND = Limit("images of which the colours along the rim are nearly the same", 0.8, "of the images", OURS)
SAME_PLACE = Limit("images with the same marks at the same place", 0.75, "of those of one shape", CASES)
MARKED = Limit("what an image has of such marks, if it is said to have them", 0.5, "of the marks", OURS)
SUBJECT = Limit("what the bucket's crop keeps of the probable subject", 0.75, "of its box", CASES)
ALWAYS = Limit("captions with the same tag, beside the trigger word", 0.90, "of the captions", OURS)
ALONE = Limit("images with a bucket of their own", 0.50, "of the images", OURS)
FEWEST = Limit("images below which a LoRA does little more than copy them", 5, "images", OURS)

LIMITS = (
    BLUR, TOO_DARK, TOO_BRIGHT, WASHED_OUT, ON_WHITE, BORDER, TWINS, OTHER_COLOUR, INSIDE, MASK, JPEG, SMALL,
    TINY, CUT, ODD, SAME, ONE_BACKGROUND, SAME_PLACE, MARKED, SUBJECT, ALWAYS, ALONE, FEWEST,
)  # fmt: skip
