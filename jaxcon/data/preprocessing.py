"""What happens to an image before an encoder sees it: recorded by a run, repeated when it is used.

>>> settings = preprocessing((8, 8, 1))
>>> settings["size"], settings["channels"]
([8, 8], 1)
>>> pixels = np.full((30, 20, 3), 255, np.uint8)  # of another size, and in colour
>>> prepare([pixels], settings)[0, 0, 0].tolist()
[1.0]
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcon.data.image_files import read_image
from jaxcon.data.pixels import Shape, fit, to_rgb
from jaxcon.data.splits import DataError

_FIT = "shorter side to size{}, bicubic; centre crop"


def preprocessing(shape: Shape, zoom: float = 1.0) -> dict[str, Any]:
    """Returns the settings, as JSON values, for images that a dataset provides in this shape.

    Args:
      shape: (height, width, channels); one channel is grey, three are RGB.
      zoom: share of the shorter side that they show (`Split.zoom`).

    Raises:
      DataError: if the shape is not square but for a zoom of 1.
    """
    height, width, channels = shape
    if zoom != 1 and height != width:
        raise DataError(f"a zoom of {zoom} takes square images, got {width} x {height} pixels")
    return {
        "size": [height, width],
        "fit": _FIT.format("" if zoom == 1 else f" / {zoom}"),
        **({} if zoom == 1 else {"zoom": zoom}),  # runs recorded before this have none
        "channels": channels,
        "transparent": "white",
        # Of values in [0, 1]: (x - mean) / std.
        "mean": [0.0] * channels,
        "std": [1.0] * channels,
    }


def image_shape(settings: Mapping[str, Any]) -> Shape:
    """Returns the (height, width, channels) of the images that come out."""
    height, width = settings["size"]
    return height, width, settings["channels"]


def prepare(images: Sequence[Any], settings: Mapping[str, Any], *, first: int = 0) -> np.ndarray:
    """Prepares images for an encoder: float32 `[n, height, width, channels]`.

    Args:
      images: files (paths), Pillow images, or arrays `[height, width]` or `[height, width, channels]`
        with 1, 3 or 4 channels, uint8 or floats in [0, 1]; of any size. Floats that have to be
        resized are rounded to 256 levels. Arrays of the very size are taken for images that are
        prepared, as those of a `Split`; files and Pillow images are not.
      settings: what `preprocessing` returned.
      first: number of the first image, for messages.

    Raises:
      DataError: if an image cannot be read, or an array is of another kind; names its position.
    """
    shape, zoom = image_shape(settings), settings.get("zoom", 1.0)
    rows = np.empty((len(images), *shape), np.float32)
    for number, image in enumerate(images):
        rows[number] = _prepare(image, shape, zoom, f"images[{first + number}]")
    mean, std = (np.array(settings[name], np.float32) for name in ("mean", "std"))
    return (rows - mean) / std


def _prepare(image: Any, shape: Shape, zoom: float, place: str) -> np.ndarray:
    """Prepares one image, in [0, 1]."""
    from PIL import Image, ImageOps

    if isinstance(image, str | os.PathLike):
        image = Image.fromarray(read_image(image, None))
    elif isinstance(image, Image.Image):
        image = to_rgb(ImageOps.exif_transpose(image))
    else:
        pixels = _checked(_array(image, place), place)
        if pixels.shape == shape:
            return pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels
        if pixels.dtype != np.uint8:
            pixels = np.round(255 * pixels.astype(np.float64)).astype(np.uint8)
        image = to_rgb(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))
    if shape[0] == shape[1]:
        image = fit(image, shape[0], zoom)
    elif image.size != (shape[1], shape[0]):
        image = ImageOps.fit(image, (shape[1], shape[0]), method=Image.Resampling.BICUBIC)
    pixels = np.asarray(image.convert("L" if shape[2] == 1 else "RGB"))
    return pixels.reshape(shape) / np.float32(255)


def _array(image: Any, place: str) -> np.ndarray:
    """Converts to an array anything that can become one."""
    try:
        pixels = np.asarray(image)
    except ValueError as error:  # lists of several lengths
        raise DataError(f"{place}: expected an array, got rows of several lengths") from error
    if pixels.ndim == 0:
        raise DataError(
            f"{place}: expected a path, a Pillow image or an array, got {type(image).__name__}; the "
            "bytes of a file are opened by PIL.Image.open(io.BytesIO(content))"
        )
    return pixels


def _checked(pixels: np.ndarray, place: str) -> np.ndarray:
    """Returns the pixels as `[height, width, channels]`, uint8 or floats in [0, 1]."""
    floating = np.issubdtype(pixels.dtype, np.floating) or pixels.dtype.name == "bfloat16"
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4) or 0 in pixels.shape:
        raise DataError(
            f"{place}: expected [height, width] or [height, width, channels] with 1, 3 or 4 "
            f"channels, got an array of shape {pixels.shape}"
        )
    if pixels.dtype != np.uint8 and not floating:
        deep = ", in 0..65535: / np.float32(65535)" if pixels.dtype == np.uint16 else ""
        mend = (
            ".astype(np.float32)"
            if pixels.dtype == bool
            else f"if its values lie in 0..255: .astype(np.uint8){deep}"
        )
        raise DataError(
            f"{place}: expected uint8 in 0..255 or floats in [0, 1], got {pixels.dtype}; {mend}"
        )
    if floating and not (pixels.min() >= 0 and pixels.max() <= 1):
        raise DataError(
            f"{place}: floats must lie in [0, 1], got {float(pixels.min()):.4g} to "
            f"{float(pixels.max()):.4g}; divide by the largest possible pixel value"
        )
    return pixels
