"""Maps grey of more than 8 bits to 0 to 255, by the range of the file's format, not of its values.

Two pictures from one camera must stay comparable, so nothing is stretched to what an image happens to
hold. Pillow tells the mode, but not always the range: a 10-bit PGM and a signed 16-bit TIFF are both
"I".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxcon.data.splits import Unreadable

if TYPE_CHECKING:
    from PIL import Image

# Tags of TIFF.
BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _SIGNED = 0, 2


def is_deep(image: Image.Image) -> bool:
    """Returns whether the image has tones other than 0 to 255: 16 or 32 bits, floats, signed bytes."""
    signed_bytes = image.mode == "L" and tag(image, _SAMPLE_FORMAT) == _SIGNED
    return signed_bytes or image.mode.startswith(("I", "F"))


def eight_bits(image: Image.Image) -> Image.Image:
    """Converts a deep image to "L", or to "LA" if one of its tones stands for transparent.

    A tone v of a format from low to high becomes 255 (v - low) / (high - low), rounded; floats range
    from 0 to 1.

    Example:
      >>> from PIL import Image
      >>> ramp = Image.fromarray(np.array([[0, 0x4000, 0x8000, 0xFFFF]], np.uint16))
      >>> np.asarray(eight_bits(ramp)).tolist()
      [[0, 64, 128, 255]]

    Raises:
      Unreadable: for floats outside 0 to 1, and for 32-bit integers that would all become one tone
        because they use a different range than that of their format.
    """
    from PIL import Image

    stored = np.asarray(image)
    values, low, high = _with_range(image, stored)
    if tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = low + high - values
    tones = _scaled(values, low, high)
    if high - low > 0xFFFF and tones.min() == tones.max() and values.min() < values.max():
        raise Unreadable(
            f"its values run from {values.min():,} to {values.max():,}, those of its format from "
            f"{low:,} to {high:,}: it would be one flat tone",
            "save it as 8-bit or 16-bit grey",
        )
    grey = Image.fromarray(tones)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(stored == clear, 0, 255).astype(np.uint8)))
    return grey


def array_to_uint8(pixels: np.ndarray) -> np.ndarray:
    """Converts an array in the same way, by the range of its dtype; uint8 is returned unchanged.

    Example:
      >>> array_to_uint8(np.array([0, 0x4000, 0xFFFF], np.uint16)).tolist()
      [0, 64, 255]

    Raises:
      Unreadable: for floats outside 0 to 1.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if np.issubdtype(pixels.dtype, np.floating):
        _require_unit(pixels)
        return _scaled(np.clip(pixels, 0, 1), 0, 1)
    limits = np.iinfo(pixels.dtype)
    return _scaled(pixels, limits.min, limits.max)


def _scaled(values: np.ndarray, low: int, high: int) -> np.ndarray:
    share = (values.astype(np.float32) - low) * np.float32(255 / (high - low))
    return np.rint(share).astype(np.uint8)


def _with_range(image: Image.Image, values: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Returns the values as the file means them, and the least and most that its format can hold."""
    if image.mode == "F":
        _require_unit(values)
        return np.clip(values, 0, 1), 0, 1
    kind = image.format
    if kind == "TIFF":
        bits = tag(image, BITS) or 8
        signed = tag(image, _SAMPLE_FORMAT) == _SIGNED
    elif kind == "FITS":
        bits, signed = (16 if "16" in image.mode else 32), True
    elif kind == "PPM":
        bits, signed = 16, False  # Pillow has scaled what the file calls its maximum
    else:
        bits, signed = (16, False) if "16" in image.mode else (32, True)
    if signed:
        values = values.astype(f"i{bits // 8}")  # Pillow reads signed bytes as unsigned ones
        return values, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return values.astype(np.uint32 if bits == 32 else np.uint16), 0, 2**bits - 1


def _require_unit(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise Unreadable(
            "some of its values are NaN or infinite, expected 0 to 1",
            "replace them, or save it as 8-bit or 16-bit grey",
        )
    low, high = values.min(), values.max()
    rounding = 1e-6
    if low < -rounding or high > 1 + rounding:
        raise Unreadable(
            f"its values are floats from {low:g} to {high:g}, expected 0 to 1",
            "divide them by the largest possible pixel value, or save it as 8-bit or 16-bit grey",
        )


def tag(image: Image.Image, number: int) -> int | None:
    """Returns the (first) value of a TIFF tag; None if it is missing or the image is not a TIFF."""
    if image.format != "TIFF":
        return None
    value = image.tag_v2.get(number)  # pyright: ignore[reportAttributeAccessIssue]
    return value[0] if isinstance(value, tuple) else value
