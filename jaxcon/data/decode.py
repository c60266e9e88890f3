"""Crops of encoded pictures: no more is decoded than they show.

A JPEG is decoded at a half, a quarter or an eighth of its sides, where that leaves every crop at least
as many pixels as its view: libjpeg-turbo then computes no more than these. What is no plain JPEG, such
as PNG, WebP, or CMYK, goes through Pillow, with the colours that evaluation sees.

>>> import io
>>> content = io.BytesIO()
>>> Image.new("RGB", (64, 48), (9, 9, 9)).save(content, "JPEG")
>>> whole = Box(top=0, left=0, height=48, width=48, flipped=False)
>>> crop_views(content.getvalue(), lambda size: [whole], side=12).shape
(1, 12, 12, 3)
"""

from __future__ import annotations

import functools
import io
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxcon.data.crops import Box
from jaxcon.data.encoded import array_picture, opened, orientation, upright

Size = tuple[int, int]

# Of the sides; libjpeg-turbo has quick code for these, and none for those between.
_DENOMINATORS = (8, 4, 2)
_TURNS: dict[Image.Transpose | None, Callable[[np.ndarray], np.ndarray]] = {
    None: lambda pixels: pixels,
    Image.Transpose.FLIP_LEFT_RIGHT: lambda pixels: pixels[:, ::-1],
    Image.Transpose.FLIP_TOP_BOTTOM: lambda pixels: pixels[::-1],
    Image.Transpose.ROTATE_90: lambda pixels: np.rot90(pixels),
    Image.Transpose.ROTATE_180: lambda pixels: pixels[::-1, ::-1],
    Image.Transpose.ROTATE_270: lambda pixels: np.rot90(pixels, -1),
    Image.Transpose.TRANSPOSE: lambda pixels: pixels.swapaxes(0, 1),
    Image.Transpose.TRANSVERSE: lambda pixels: pixels.swapaxes(0, 1)[::-1, ::-1],
}
_SIDEWAYS = {
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
}


def crop_views(
    content: bytes | np.ndarray,
    boxes: Callable[[Size], Sequence[Box]],
    *,
    side: int,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Cuts boxes out of one picture and resizes each to a square, antialiased.

    Args:
      content: what a file contains, or pixels: `[height, width, channels]` with 1, 3 or 4 channels.
      boxes: maps (height, width) of the upright picture to the boxes, at least one.
      side: of the squares.
      out: where to write them, uint8 `[boxes, side, side, 3]`; None: to a new array.

    Returns:
      uint8 `[boxes, side, side, 3]`.

    Raises:
      Exception: whatever a decoder raises; `encoded.explained` turns it into one line.
    """
    header = _jpeg_header(content) if isinstance(content, bytes) else None
    if header is None:
        pixels = _whole_picture(content)
        size = (pixels.shape[0], pixels.shape[1])
        drawn = boxes(size)
    else:
        height, width = header.stored
        size = (width, height) if header.turn in _SIDEWAYS else (height, width)
        drawn = boxes(size)
        pixels = _decode(content, header, _denominator(drawn, side))
    views = np.empty((len(drawn), side, side, 3), np.uint8) if out is None else out
    for view, box in zip(views, drawn, strict=True):
        _cut(pixels, size, box, view)
    return views


class _Header(NamedTuple):
    """(height, width) of a JPEG as stored, and what turns it upright."""

    stored: Size
    turn: Image.Transpose | None


def _jpeg_header(content: bytes) -> _Header | None:
    """Returns the header of a plain JPEG; None for all else, which Pillow may have to decode for it."""
    with opened(io.BytesIO(content)) as image:
        # "MPO": several JPEGs one after another, as telephones write; the first is the picture.
        if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
            return _Header((image.height, image.width), orientation(image))
    return None


def _whole_picture(content: bytes | np.ndarray) -> np.ndarray:
    encoded = isinstance(content, bytes)
    return np.asarray(upright(io.BytesIO(content)) if encoded else array_picture(content))


def _denominator(boxes: Sequence[Box], side: int) -> int:
    """Returns the largest that leaves all boxes at least `side` pixels, or 1."""
    least = min(min(box.height, box.width) for box in boxes)
    return next((d for d in _DENOMINATORS if least >= d * side), 1)


def _decode(content: bytes | np.ndarray, header: _Header, denominator: int) -> np.ndarray:
    """Returns the upright JPEG, its sides divided by `denominator` unless Pillow has to decode it."""
    height, width = (-(-length // denominator) for length in header.stored)
    try:
        pixels = _simplejpeg().decode_jpeg(
            content,
            fastdct=False,
            fastupsample=False,
            min_height=height,
            min_width=width,
            buffer=_scratch.take("pixels", (height, width, 3)),
        )
    except ValueError:  # damaged, or of a rare kind: Pillow decides, and says what is wrong
        return _whole_picture(content)
    return _TURNS[header.turn](pixels)


def _cut(pixels: np.ndarray, size: Size, box: Box, view: np.ndarray) -> None:
    """Writes a box of a picture, which may be decoded at a smaller scale than `size`, into a square.

    Its edges are rounded to whole pixels of what was decoded, and nothing is interpolated for their
    sake: the box is a random one anyway.
    """
    rows = _whole(box.top, box.height, pixels.shape[0], size[0])
    columns = _whole(box.left, box.width, pixels.shape[1], size[1])
    part = pixels[rows, columns]
    if part.strides[0] < 0 or part.strides[1:] != (3, 1):  # of a picture that was turned
        part = np.ascontiguousarray(part)
    if box.flipped:
        _cv2().flip(_resized(part, _scratch.take("view", view.shape)), 1, dst=view)
    else:
        _resized(part, view)


def _resized(part: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Resizes to the square `out`.

    What shrinks to less than half becomes the means over areas. Otherwise it is interpolated
    bicubically; what shrinks by a factor s, after a blur by (w, 1 - 2 w, w), w = (s - 1) / 4: none at
    s = 1, and the binomial (1, 2, 1) / 4 at s = 2, which leaves nothing of what would be aliased to
    a constant. This is nearer to Pillow's bicubic than means are, and takes half the time.
    """
    cv2, side = _cv2(), len(out)
    height, width = part.shape[:2]
    if max(height, width) > 2 * side:
        less = (min(width, side), min(height, side))
        part = cv2.resize(part, less, interpolation=cv2.INTER_AREA)
    elif max(height, width) > side:
        down, across = (_kernel(length / side) for length in (height, width))
        blurred = _scratch.take("part", part.shape)
        edge = cv2.BORDER_REPLICATE
        part = cv2.sepFilter2D(part, -1, across, down, dst=blurred, borderType=edge)
    return cv2.resize(part, (side, side), dst=out, interpolation=cv2.INTER_CUBIC)


def _kernel(shrinks: float) -> np.ndarray:
    weight = max(0.0, (shrinks - 1) / 4)
    return np.array([weight, 1 - 2 * weight, weight], np.float32)


def _whole(first: float, length: float, decoded: int, stored: int) -> slice:
    """Returns the whole pixels of a decoded axis nearest to an interval of the stored one."""
    scale = decoded / stored
    low = min(round(first * scale), decoded - 1)
    return slice(low, min(max(round((first + length) * scale), low + 1), decoded))


class _Scratch(threading.local):
    """Arrays that a thread uses again and again: new memory costs more than what is done in it."""

    most = 2**26  # bytes; larger ones are not kept

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the array of this name with this shape; what it holds is lost at the next call."""
        count = math.prod(shape)
        array = self._arrays.get(name)
        if array is None or array.size < count:
            array = np.empty(count, np.uint8)
            if count <= self.most:
                self._arrays[name] = array
        return array[:count].reshape(shape)


_scratch = _Scratch()


@functools.cache
def _simplejpeg() -> Any:
    import simplejpeg

    return simplejpeg


@functools.cache
def _cv2() -> Any:
    import cv2

    cv2.setNumThreads(0)  # pictures are read in parallel already
    return cv2
