"""Which pictures show the same thing again: resized, re-encoded, mirrored, or cropped.

Each picture is a small thumbnail. One that is cropped out of another equals a window of it, so each is compared
with windows of all the others, first coarsely, all at once; what comes near is then fitted more finely. Likeness is the
correlation of the grey values, which neither brightness nor contrast changes; and the colours have to be the same.
Before a plain background, where things of one outline are alike, what is inside it has to be alike, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from PIL import Image

from lora_trainer.dataset.checks.limits import INSIDE, OTHER_COLOUR
from lora_trainer.dataset.folders import side_by_side
from lora_trainer.dataset.subject import smooth

Array = np.ndarray[Any, Any]
Box = tuple[float, float, float, float]  # left, top, right, bottom as shares of the sides

THUMBNAIL = 64  # px of each side, whatever the picture's shape
COLOURS = 16  # px of each side of its two planes of colour
COARSE = 12
FINE = 24
SCALES = (1.0, 0.9, 0.8, 0.72)  # of a window's sides
SMALLEST = 0.68  # of a window's sides: a smaller part is a close-up and has its own worth
NEAR = 0.65  # coarse likeness from which a pair is looked at more closely
TRIES = 4  # fits in vain after which a picture is taken to have no twin
OUTLINE = 0.5  # of a fit in vain: what one counts that found nothing but the same outline
HOPEFUL = (0.8, 0.9)  # likeness that a fit must have reached after each step but the last
AT_ONCE = 256  # pictures whose windows are in memory together
ROWS, COLUMNS = 32, 56  # of a product that OpenBLAS leaves to the thread that asks: its own ones mostly wait here
INNER = 32  # px of each side in which what is before a plain background is compared
PLAIN = 8  # of 255: how far from the rim's usual grey a plain background may be
MOSTLY = 0.25  # of both pictures: a background
SEEN = 4.0  # of 255: the contrast below which a thing before it shows nothing but its outline
FEWEST = 30  # px: a smaller thing, too
FLAT = 2.0  # of 255: the contrast below which a thumbnail shows nothing

_RIM = np.pad(np.zeros((INNER - 2, INNER - 2), bool), 1, constant_values=True)


def unpacked(packed: bytes) -> tuple[Array, Array]:
    """A thumbnail's grey [64, 64] and colour [2, 16, 16], float32 from 0 to 255."""
    values = np.frombuffer(packed, np.uint8).astype(np.float32)
    grey, colour = values[: THUMBNAIL**2], values[THUMBNAIL**2 :]
    return grey.reshape(THUMBNAIL, THUMBNAIL), colour.reshape(2, COLOURS, COLOURS)


class _Thumbnail:
    """A thumbnail, unpacked: grey [64, 64] and colour [2, 16, 16]."""

    def __init__(self, packed: bytes) -> None:
        self.grey, self.colour = unpacked(packed)

    def mirrored(self) -> _Thumbnail:
        """Left and right exchanged."""
        found = _Thumbnail.__new__(_Thumbnail)
        found.grey, found.colour = self.grey[:, ::-1], self.colour[..., ::-1]
        return found


def thumbnail(picture: Image.Image) -> bytes:
    """Grey values row by row, then those of the two planes of colour."""
    grey, *colours = (picture if picture.mode == "RGB" else picture.convert("RGB")).convert("YCbCr").split()
    planes = [grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)]
    planes += [plane.resize((COLOURS, COLOURS), Image.Resampling.BOX) for plane in colours]
    return b"".join(plane.tobytes() for plane in planes)


def alike(thumbnails: Sequence[bytes], least: float) -> list[list[int]]:
    """Groups of pictures (by index, each in order) that are alike: each by at least ``least`` to another one in it."""
    small = [_Thumbnail(one) for one in thumbnails]
    shown = [index for index, one in enumerate(small) if one.grey.std() >= FLAT]
    group = list(range(len(small)))  # each points to an earlier member of its group, the first to itself

    def first(index: int) -> int:
        while group[index] != index:
            index = group[index]
        return index

    vain = [0.0] * len(small)
    boxes = list(_boxes())
    for row, column, box, flipped in _candidates([small[index].grey for index in shown], boxes):
        outer, inner = shown[row], shown[column]
        if max(vain[outer], vain[inner]) >= TRIES:
            continue
        one, other = sorted((first(outer), first(inner)))
        if one == other:
            continue
        as_it_is, mirrored = small[inner], small[inner].mirrored()
        nearer, farther = (mirrored, as_it_is) if flipped else (as_it_is, mirrored)
        found = _same(small[outer], nearer, boxes[box], least)
        if found or (found is None and _same(small[outer], farther, boxes[box], least)):
            group[other] = one
        else:
            for index in (outer, inner):
                vain[index] += OUTLINE if found is None else 1
    members: dict[int, list[int]] = {}
    for index in range(len(small)):
        members.setdefault(first(index), []).append(index)
    return [found for found in members.values() if len(found) > 1]


def _same(outer: _Thumbnail, inner: _Thumbnail, box: Box, least: float) -> bool | None:
    """Whether a picture and a window of another one near ``box`` are alike; None if in their outline only, which says
    little of which of them is mirrored."""
    likeness, fitted = _fitted(outer.grey, inner.grey, box)
    if likeness < least or _colour_apart(outer, inner, fitted) >= OTHER_COLOUR.value:
        return False
    return _inside(outer.grey, inner.grey, fitted) >= INSIDE.value or None


def _candidates(grey: Sequence[Array], boxes: Sequence[Box]) -> Iterator[tuple[int, int, int, bool]]:
    """Pairs that are near, coarsely, the nearest first: outer, inner, the number of the outer's window that is the
    inner, and whether that is mirrored."""
    if len(grey) < 2:
        return
    every = np.stack(grey)
    both = [_blocks(_windows(one, boxes[:1], COARSE), COLUMNS).swapaxes(1, 2) for one in (every, every[:, :, ::-1])]

    def near(start: int) -> tuple[Array, ...]:
        part = every[start : start + AT_ONCE]
        windows = _windows(part, boxes, COARSE).reshape(len(part), len(boxes), -1)
        best = np.full((-(-len(part) // ROWS), len(both[0]), ROWS, COLUMNS), -1, np.float32)
        which = np.zeros(best.shape, np.int16)
        for number, (others, box) in enumerate(product(both, range(len(boxes)))):
            likeness = _blocks(windows[:, box], ROWS)[:, None] @ others
            np.copyto(which, number, where=likeness > best)
            np.maximum(best, likeness, out=best)
        best, which = (
            one.swapaxes(1, 2).reshape(-1, one.shape[1] * COLUMNS)[: len(part), : len(grey)] for one in (best, which)
        )
        best[np.arange(len(part)), np.arange(start, start + len(part))] = -1
        rows, columns = np.nonzero(best >= NEAR)
        return best[rows, columns], start + rows, columns, which[rows, columns]

    found = side_by_side(near, range(0, len(grey), AT_ONCE))
    nearest, *pairs = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(-nearest, kind="stable")
    for outer, inner, number in zip(*(part[order].tolist() for part in pairs), strict=True):
        flipped, box = divmod(number, len(boxes))
        yield outer, inner, box, bool(flipped)


def _blocks(vectors: Array, size: int) -> Array:
    """So many vectors [N, D] at a time, the last ones zeros: [blocks, size, D]."""
    missing = -len(vectors) % size
    return np.pad(vectors, ((0, missing), (0, 0))).reshape(-1, size, vectors.shape[1])


def _boxes() -> Iterator[Box]:
    for scale in SCALES:
        places = (0.0, 0.5, 1.0) if scale < 1 else (0.0,)
        for x, y in product(places, repeat=2):
            left, top = x * (1 - scale), y * (1 - scale)
            yield left, top, left + scale, top + scale


def _picture(grey: Array) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(grey))


def _window(picture: Image.Image, box: Box, side: int) -> Array:
    """A part of a square picture, resampled to ``side`` x ``side``."""
    whole = picture.width
    edges = (box[0] * whole, box[1] * whole, box[2] * whole, box[3] * whole)
    return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR, box=edges))


def _windows(pictures: Array, boxes: Sequence[Box], side: int) -> Array:
    """As :func:`_vector` of :func:`_window`, for all windows of all pictures [N, 64, 64] at once: [N x boxes, side²].

    Resampling is linear and done along one axis after the other, so a window is a product with two small matrices.
    """
    rows = np.stack([_weights(top, bottom, side) for _, top, _, bottom in boxes])
    columns = np.stack([_weights(left, right, side).T for left, _, right, _ in boxes])
    found = (rows @ pictures[:, None] @ columns).reshape(len(pictures), len(boxes), -1)
    found -= found.mean(axis=2, keepdims=True)
    found /= np.maximum(np.linalg.norm(found, axis=2, keepdims=True), 1e-6)
    return found.reshape(-1, side * side)


@lru_cache(maxsize=1 << 11)
def _weights(first: float, last: float, side: int) -> Array:
    """What each of ``side`` pixels takes of those of a thumbnail's row between two edges: [side, 64], Pillow's own."""
    lines = _picture(np.eye(THUMBNAIL, dtype=np.float32))
    box = (0, first * THUMBNAIL, THUMBNAIL, last * THUMBNAIL)
    return np.asarray(lines.resize((THUMBNAIL, side), Image.Resampling.BILINEAR, box=box))


def _colour_apart(outer: _Thumbnail, inner: _Thumbnail, box: Box) -> float:
    """The difference of colour of a picture and a window of another one where it is largest, of 255."""
    pairs = zip(outer.colour, inner.colour, strict=True)
    apart = [
        np.abs(_window(_picture(one), box, 4) - _window(_picture(other), (0, 0, 1, 1), 4)).max() for one, other in pairs
    ]
    return float(max(apart))


def _inside(outer: Array, inner: Array, box: Box) -> float:
    """The likeness of what a picture and a window of another one show before a plain background, without its outline;
    1 where there is no such background, or nothing to be seen before it."""
    one, other = _window(_picture(outer), box, INNER), _window(_picture(inner), (0, 0, 1, 1), INNER)
    plain = np.stack([np.abs(grey - np.median(grey[_RIM])) < PLAIN for grey in (one, other)])
    things = smooth(plain.any(0).astype(float), 1) < 0.5 / 9
    if plain.all(0).mean() < MOSTLY or np.count_nonzero(things) < FEWEST:
        return 1.0
    a, b = (grey[things] - grey[things].mean() for grey in (one, other))
    return 1.0 if max(a.std(), b.std()) < SEEN else float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-6))


def _fitted(outer: Array, inner: Array, box: Box) -> tuple[float, Box]:
    """The likeness of a picture and the best window of another one near ``box``, and that window: an edge or two are
    moved as long as that helps, in ever smaller steps."""
    target = _windows(inner[None], [(0.0, 0.0, 1.0, 1.0)], FINE)[0]
    best, edges = float(_windows(outer[None], [box], FINE)[0] @ target), box
    for step, hopeful in zip((0.06, 0.03, 0.015), (*HOPEFUL, 0), strict=True):
        for _ in range(3):
            tried = list(_moved(edges, step))
            likeness = _windows(outer[None], tried, FINE) @ target
            most = int(likeness.argmax())
            if likeness[most] <= best:
                break
            best, edges = float(likeness[most]), tried[most]
        if best < hopeful:
            break
    return best, edges


def _moved(box: Box, step: float) -> Iterator[Box]:
    """The box with an edge moved, and with two opposite ones."""
    left, top, right, bottom = box
    for a, b, c, d in (
        (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (1, 0, 1, 0), (0, 1, 0, 1), (1, 1, -1, -1),
    ):  # fmt: skip
        for sign in (step, -step):
            moved = (left + a * sign, top + b * sign, right + c * sign, bottom + d * sign)
            if min(moved) >= 0 and max(moved) <= 1 and min(moved[2] - moved[0], moved[3] - moved[1]) >= SMALLEST:
                yield moved
