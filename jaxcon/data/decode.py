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
    content: bytes | np.ndarray, boxes: Callable[[Size], Sequence[Box]], *, side: int
) -> np.ndarray:
    """Cuts boxes out of one picture and resizes each to a square, antialiased.

    Args:
      content: what a file contains, or pixels: `[height, width, channels]` with 1, 3 or 4 channels.
      boxes: maps (height, width) of the upright picture to the boxes, at least one.
      side: of the squares.

    Returns:
      uint8 `[boxes, side, side, 3]`.

    Raises:
      Exception: whatever a decoder raises; `encoded.explained` turns it into one line.
    """
    if isinstance(content, bytes):
        header = _read_header(content)
        height, width = header.stored
        size = (width, height) if header.turn in _SIDEWAYS else (height, width)
        drawn = boxes(size)
        pixels = _decode(content, header, _denominator(drawn, side))
    else:
        pixels = np.asarray(array_picture(content))
        size = (pixels.shape[0], pixels.shape[1])
        drawn = boxes(size)
    views = np.empty((len(drawn), side, side, 3), np.uint8)
    for view, box in zip(views, drawn, strict=True):
        _cut(pixels, size, box, view)
    return views


class _Header(NamedTuple):
    """(height, width) as stored, what turns the picture upright, and whether it is a plain JPEG."""

    stored: Size
    turn: Image.Transpose | None
    plain: bool


def _read_header(content: bytes) -> _Header:
    with opened(io.BytesIO(content)) as image:
        # "MPO": several JPEGs one after another, as telephones write; the first is the picture.
        plain = image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L")
        return _Header((image.height, image.width), orientation(image), plain)


def _denominator(boxes: Sequence[Box], side: int) -> int:
    """Returns the largest that leaves all boxes at least `side` pixels, or 1."""
    least = min(min(box.height, box.width) for box in boxes)
    return next((d for d in _DENOMINATORS if least >= d * side), 1)


def _decode(content: bytes, header: _Header, denominator: int) -> np.ndarray:
    """Returns the upright picture, its sides divided by `denominator` if that is quick."""
    if header.plain:
        height, width = (-(-length // denominator) for length in header.stored)
        try:
            pixels = _simplejpeg().decode_jpeg(
                content, fastdct=False, fastupsample=False, min_height=height, min_width=width
            )
        except ValueError:  # damaged, or of a rare kind: Pillow decides, and says what is wrong
            return np.asarray(upright(io.BytesIO(content)))
        return _TURNS[header.turn](pixels)
    return np.asarray(upright(io.BytesIO(content)))


def _cut(pixels: np.ndarray, size: Size, box: Box, view: np.ndarray) -> None:
    """Writes a box of a picture, which may be decoded at a smaller scale than `size`, into a square.

    Its edges are rounded to whole pixels of what was decoded, and nothing is interpolated for their
    sake: the box is a random one anyway. Of two lengths, those that shrink do so by the mean over
    areas; those that grow, bicubically.
    """
    cv2, side = _cv2(), len(view)
    rows = _whole(box.top, box.height, pixels.shape[0], size[0])
    columns = _whole(box.left, box.width, pixels.shape[1], size[1])
    part = np.ascontiguousarray(pixels[rows, columns])
    height, width = part.shape[:2]
    if height > side or width > side:
        less = (min(width, side), min(height, side))
        part = cv2.resize(part, less, interpolation=cv2.INTER_AREA)
    if part.shape[:2] != (side, side):
        part = cv2.resize(part, (side, side), interpolation=cv2.INTER_CUBIC)
    np.copyto(view, cv2.flip(part, 1) if box.flipped else part)


def _whole(first: float, length: float, decoded: int, stored: int) -> slice:
    """Returns the whole pixels of a decoded axis nearest to an interval of the stored one."""
    scale = decoded / stored
    low = min(round(first * scale), decoded - 1)
    return slice(low, min(max(round((first + length) * scale), low + 1), decoded))


@functools.cache
def _simplejpeg() -> Any:
    import simplejpeg

    return simplejpeg


@functools.cache
def _cv2() -> Any:
    import cv2

    cv2.setNumThreads(0)  # pictures are read in parallel already
    return cv2
