"""Pixels of any kind of picture to uint8 arrays of one shape. Pillow is imported inside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxcon.data.tones import array_to_uint8, eight_bits, is_deep

if TYPE_CHECKING:
    from PIL import Image

DEFAULT_SIDE = 64
Shape = tuple[int, int, int]

# PNG names its transparent colour in the bits of the file, Pillow's pixels have eight.
_CLEAR_TO_8_BITS = {
    "L;2": lambda clear: clear * 85,
    "L;4": lambda clear: clear * 17,
    "RGB;16B": lambda clear: tuple(value >> 8 for value in clear),
}


def default_side(sizes: Iterable[Sequence[int]]) -> int:
    """The side images get when none is asked for: the median of their shorter sides, at most 64.

    One icon or one banner among photographs does not decide it.

    Example:
      >>> default_side([(1, 1), (40, 30), (20, 500)])
      20

    Args:
      sizes: (height, width) of one image or more.
    """
    shorter = sorted(int(min(size)) for size in sizes)
    return min(shorter[(len(shorter) - 1) // 2], DEFAULT_SIDE)


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB; what is transparent becomes white.

    Grey is repeated, palettes, CMYK, YCbCr, HSV and LAB are converted, more than 8 bits are brought
    to 8 by the range of the format (`tones.eight_bits`).

    Example:
      >>> from PIL import Image
      >>> to_rgb(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0))
      (255, 255, 255)

    Raises:
      Unreadable: for floats outside of 0 to 1, and the like.
    """
    from PIL import Image

    if image.format == "PNG" and "transparency" in image.info and (tiles := _tiles(image)):
        rescale = _CLEAR_TO_8_BITS.get(tiles[0][3], lambda clear: clear)
        image.info["transparency"] = rescale(image.info["transparency"])
    image.load()
    if is_deep(image):
        image = eight_bits(image)
    if image.mode == "La":  # premultiplied; Pillow knows one way out
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _tiles(image: Image.Image) -> list:
    """What is still to be decoded of a file, with the layout of its bits; none once it is loaded."""
    return getattr(image, "tile", [])


def fit(image: Image.Image, side: int) -> Image.Image:
    """Resizes the shorter side to `side` (bicubic, antialiased) and crops the centre.

    An image of that size already is passed on untouched.

    Example:
      >>> from PIL import Image
      >>> fit(Image.new("RGB", (30, 20)), 8).size
      (8, 8)
    """
    from PIL import Image, ImageOps

    if image.size == (side, side):
        return image
    return ImageOps.fit(image, (side, side), method=Image.Resampling.BICUBIC)


def fit_array(pixels: np.ndarray, shape: Shape) -> np.ndarray:
    """`fit` for an array; one of another dtype than uint8 is brought to it by the dtype's range.

    Example:
      >>> fit_array(np.zeros((30, 20, 1), np.uint8), (8, 8, 1)).shape
      (8, 8, 1)

    Args:
      pixels: `[height, width, channels]` with 1, 3 or 4 channels; floats are from 0 to 1.
      shape: (side, side, channels) wanted; or the shape that `pixels` has, which resizes nothing.
    """
    pixels = array_to_uint8(pixels)
    if pixels.shape == shape:
        return pixels
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if shape[-1] == 1 else pixels)
    return np.asarray(fit(image, shape[0]), np.uint8).reshape(shape)
