"""Pixels of any kind of picture to uint8 arrays of one shape. Pillow is imported inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

DEFAULT_SIDE = 64
Shape = tuple[int, int, int]


def default_side(height: int, width: int) -> int:
    """The side images get when none is asked for: the shorter side of the first, at most 64."""
    return min(height, width, DEFAULT_SIDE)


def to_rgb(image: Image.Image) -> Image.Image:
    """Grey, palette, CMYK and 16-bit images as RGB; what is transparent becomes white.

    Example:
      >>> from PIL import Image
      >>> to_rgb(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0))
      (255, 255, 255)
    """
    from PIL import Image

    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255 and leaves a white picture.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


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
    """`fit` for an array.

    Example:
      >>> fit_array(np.zeros((30, 20, 1), np.uint8), (8, 8, 1)).shape
      (8, 8, 1)

    Args:
      pixels: uint8 `[height, width, channels]` with 1, 3 or 4 channels.
      shape: (side, side, channels) wanted; or the shape that `pixels` has, which changes nothing.
    """
    if pixels.shape == shape:
        return pixels
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if shape[-1] == 1 else pixels)
    return np.asarray(fit(image, shape[0]), np.uint8).reshape(shape)
