"""Converts pixels of any kind of picture to uint8 arrays of one shape. Imports Pillow when needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxcon.data.splits import Unreadable
from jaxcon.data.tones import BITS, array_to_uint8, eight_bits, is_deep, tag

if TYPE_CHECKING:
    from PIL import Image

DEFAULT_SIDE = 224  # of photographs
SMALL = 160  # pixels: the shorter side of the largest pictures that are none
ZOOM = 0.875  # of photographs, as the field evaluates: 224 of 256 pixels
_PANORAMA = 4  # times as long as high: to be resized as a whole, it might not fit into memory
Shape = tuple[int, int, int]

# PNG names its transparent colour in the bits of the file, Pillow's pixels have eight.
_CLEAR_TO_8_BITS = {
    "L;2": lambda clear: clear * 85,
    "L;4": lambda clear: clear * 17,
    "RGB;16B": lambda clear: tuple(value >> 8 for value in clear),
}
# libtiff hands over the bytes in the machine's order, and Pillow 13 turns these once more.
_IN_OUR_ORDER = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}


def default_side(sizes: Iterable[Sequence[int]]) -> int:
    """Returns the side that images get by default: the median of their shorter sides, or 224.

    224 is what the field trains on where that median is above `SMALL`, as of photographs. A single icon
    or banner among photographs does not change it.

    Example:
      >>> default_side([(1, 1), (40, 30), (20, 500)]), default_side([(375, 500), (768, 1024)])
      (20, 224)

    Args:
      sizes: (height, width) of one or more images.
    """
    side = _median(sizes)
    return side if side <= SMALL else DEFAULT_SIDE


def default_zoom(sizes: Iterable[Sequence[int]]) -> float:
    """Returns the share of the shorter side that evaluation sees: all of small pictures, else `ZOOM`.

    Example:
      >>> default_zoom([(96, 96)]), default_zoom([(375, 500)])
      (1.0, 0.875)

    Args:
      sizes: (height, width) of one or more images.
    """
    return 1.0 if _median(sizes) <= SMALL else ZOOM


def _median(sizes: Iterable[Sequence[int]]) -> int:
    shorter = np.sort(np.asarray([*sizes]).min(axis=1))
    return int(shorter[(len(shorter) - 1) // 2])


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts an image of any mode to RGB; transparent pixels become white.

    Grey is repeated, palettes, CMYK, YCbCr, HSV and LAB are converted, more than 8 bits are brought
    to 8 by the range of the format (`tones.eight_bits`).

    Example:
      >>> from PIL import Image
      >>> to_rgb(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0))
      (255, 255, 255)

    Raises:
      Unreadable: for floats outside 0 to 1, and the like.
    """
    from PIL import Image

    _mend(image)
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


def to_grey(pixels: np.ndarray) -> np.ndarray:
    """Converts RGB to grey as Pillow's mode L does, with the weights of ITU-R 601.

    Example:
      >>> to_grey(np.array([[7, 7, 7], [255, 0, 0]], np.uint8)).tolist()
      [[7], [76]]

    Args:
      pixels: uint8 `[..., 3]`.

    Returns:
      uint8 `[..., 1]`.
    """
    weights = np.array([19595, 38470, 7471], np.uint32)  # of 2**16
    return ((pixels @ weights + 0x8000) >> 16).astype(np.uint8)[..., None]


def _mend(image: Image.Image) -> None:
    """Corrects or refuses what Pillow gets wrong about a file that is open but not yet loaded."""
    tiles = getattr(image, "tile", [])
    if not tiles:
        return
    codec, _, _, layout = tiles[0]
    layout = layout[0] if isinstance(layout, tuple) else layout
    if image.format == "PNG" and layout in _CLEAR_TO_8_BITS and "transparency" in image.info:
        image.info["transparency"] = _CLEAR_TO_8_BITS[layout](image.info["transparency"])
    if codec == "raw" and layout in ("R", "G", "B") and tag(image, BITS) == 16:
        raise Unreadable(
            "pillow misreads 16-bit colours in separate planes", "save it with interleaved colours"
        )
    if codec == "libtiff" and layout in _IN_OUR_ORDER:
        image.tile = [  # pyright: ignore[reportAttributeAccessIssue]
            tile._replace(args=(_IN_OUR_ORDER[layout], *tile.args[1:])) for tile in tiles
        ]


def fit(image: Image.Image, side: int, zoom: float = 1.0) -> Image.Image:
    """Resizes the shorter side to `side / zoom` (bicubic, antialiased) and crops the centre.

    With a zoom of 1, an image that already has that size is returned unchanged. With another it is
    torchvision's `Resize(round(side / zoom))` and `CenterCrop(side)`, to the bit; of a panorama only
    the part around the crop is resized, in which Pillow may round otherwise.

    Example:
      >>> from PIL import Image
      >>> fit(Image.new("RGB", (30, 20)), 8).size
      (8, 8)

    Args:
      image: RGB or grey.
      side: of the square that comes out.
      zoom: share of the shorter side that is seen, in (0, 1]; 0.875 is usual for photographs.
    """
    from PIL import Image, ImageOps

    if zoom == 1:
        if image.size == (side, side):
            return image
        return ImageOps.fit(image, (side, side), method=Image.Resampling.BICUBIC)
    shorter = round(side / zoom)
    resized = [int(shorter * length / min(image.size)) for length in image.size]
    left, top = (round((length - side) / 2) for length in resized)
    if max(resized) <= _PANORAMA * shorter:
        image = image.resize(resized, Image.Resampling.BICUBIC)
        return image.crop((left, top, left + side, top + side))
    x, y = (stored / length for stored, length in zip(image.size, resized, strict=True))
    box = (left * x, top * y, (left + side) * x, (top + side) * y)
    return image.resize((side, side), Image.Resampling.BICUBIC, box=box)


def fit_array(pixels: np.ndarray, shape: Shape) -> np.ndarray:
    """Applies `fit` to an array; other dtypes than uint8 are converted by the dtype's range.

    Example:
      >>> fit_array(np.zeros((30, 20, 1), np.uint8), (8, 8, 1)).shape
      (8, 8, 1)

    Args:
      pixels: `[height, width, channels]` with 1, 3 or 4 channels; floats are from 0 to 1.
      shape: the wanted (side, side, channels), or the shape of `pixels`, which resizes nothing.
    """
    pixels = array_to_uint8(pixels)
    if pixels.shape == shape:
        return pixels
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if shape[-1] == 1 else pixels)
    return np.asarray(fit(image, shape[0]), np.uint8).reshape(shape)
