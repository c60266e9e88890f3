"""One encoded picture, wherever its bytes are: opened, turned upright, and what is wrong with it.

>>> import io
>>> content = io.BytesIO()
>>> Image.new("L", (6, 4), 7).save(content, "PNG")
>>> upright(content).size, header(content.getvalue())
((6, 4), Header(format='PNG', height=4, width=6))
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import threading
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from jaxcon.data.messages import cut
from jaxcon.data.pixels import to_rgb
from jaxcon.data.splits import Unreadable
from jaxcon.data.tones import array_to_uint8

# Endings of what Pillow only recognizes, or draws with another program.
_NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
# Formats that Pillow reads with a package of its own: by module and by pip name.
_PLUGINS = {"pillow_heif": "pillow-heif", "pillow_jxl": "pillow-jxl-plugin"}
_HEIF, _JXL = (f"pip install {name}, which reads it" for name in _PLUGINS.values())
_RAW = "export it as JPEG or TIFF"
# What a folder of pictures may hold that is not read as it is, and what to do.
UNREAD = {
    **dict.fromkeys((".heic", ".heif", ".hif"), _HEIF),
    ".jxl": _JXL,
    **dict.fromkeys((".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"), _RAW),
    **dict.fromkeys((".eps", ".pdf", ".svg"), "export it as PNG"),
    **dict.fromkeys((".7z", ".gz", ".rar", ".tar", ".tgz", ".zip"), "unpack it"),
}
_TIFF = ("a kind of TIFF that pillow cannot read", "save it as 8-bit or 16-bit TIFF")
# Beginnings of files that have an image's name but are not images.
_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the image itself", "run git lfs pull"),
    (b"<", "a text such as a web page, not an image", "download it again"),
    (b"PK\x03\x04", "a zip file", "unpack it"),
    (b"%PDF", "a PDF", UNREAD[".pdf"]),
    (b"\xff\x0a", "a JPEG XL file", _JXL),
    (b"\0\0\0\x0cJXL ", "a JPEG XL file", _JXL),
    *((start, *_TIFF) for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (b"\0" * 64, "nothing but zeros: its copy was interrupted", "copy it again"),
)
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}
# How complete files end; one that ends otherwise is decoded to find out.
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB\x60\x82", "GIF": b";"}
_REPAIR = "repair it, or remove it"
_TURNS = {  # by EXIF's orientation; 1 is upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_limit_lock = threading.Lock()
_reading: list[int | None] = []  # Pillow's own limit, once for each thread that reads


def _extensions() -> tuple[str, ...]:
    """Returns lower-case endings of what Pillow reads here, with the plugins installed here."""
    for module in _PLUGINS:
        if importlib.util.find_spec(module):
            with contextlib.suppress(ImportError):
                plugin = importlib.import_module(module)
                getattr(plugin, "register_heif_opener", lambda: None)()
    known = Image.registered_extensions()  # loads the plugins that come with Pillow
    readable = Image.OPEN.keys() - _NO_PICTURES
    return tuple(sorted(name for name, kind in known.items() if kind in readable))


EXTENSIONS = _extensions()


class Header(NamedTuple):
    """What the first bytes of a picture say.

    Attributes:
      format: Pillow's name of it, such as "JPEG".
      height: in pixels, as stored: before it is turned upright.
      width: likewise.
    """

    format: str
    height: int
    width: int


def header(content: bytes) -> Header:
    """Reads the header of a picture; nothing is decoded.

    Args:
      content: the bytes of the file, or as many of them as the header takes.

    Raises:
      Exception: whatever Pillow raises; `explained` turns it into one line.
    """
    with opened(io.BytesIO(content)) as image:
        return Header(image.format or "", image.height, image.width)


def upright(file: BinaryIO) -> Image.Image:
    """Decodes a picture: RGB as `pixels.to_rgb` makes it, turned as its EXIF orientation says.

    Raises:
      Exception: whatever Pillow's decoders raise; `explained` turns it into one line.
    """
    with opened(file) as stored:
        image = to_rgb(stored)
        turn = orientation(stored)
    return image if turn is None else image.transpose(turn)


def array_picture(pixels: np.ndarray) -> Image.Image:
    """Converts `[height, width, channels]` with 1, 3 or 4 channels to RGB.

    Example:
      >>> array_picture(np.zeros((2, 3, 4), np.uint8)).getpixel((0, 0))  # transparent
      (255, 255, 255)
    """
    pixels = array_to_uint8(pixels)
    return to_rgb(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))


@contextlib.contextmanager
def opened(file: BinaryIO) -> Iterator[Image.Image]:
    """Opens an image of a size that Pillow does not refuse, to be decoded within the context.

    Pillow warns of a decompression bomb from half that size on; a large photograph is not one.
    """
    limit = _reading[0] if _reading else Image.MAX_IMAGE_PIXELS
    with _pixels_limited_to(None):
        image = Image.open(file)
    if limit and image.width * image.height > 2 * limit:
        raise Unreadable(
            f"{image.width:,} x {image.height:,} pixels; more than {2 * limit / 1e6:.0f} "
            "megapixels could be a decompression bomb",
            "make it smaller, or remove it",
        )
    with _pixels_limited_to(limit and 4 * limit):  # in case the header hides another size
        yield image


@contextlib.contextmanager
def _pixels_limited_to(most: int | None) -> Iterator[None]:
    """Sets another limit for Pillow until the last thread that reads is done.

    There is one limit for the whole program; the filters of `warnings` are global too, and threads
    could not restore them in order.
    """
    with _limit_lock:
        _reading.append(_reading[0] if _reading else Image.MAX_IMAGE_PIXELS)
        Image.MAX_IMAGE_PIXELS = most
    try:
        yield
    finally:
        with _limit_lock:
            before = _reading.pop()
            if not _reading:
                Image.MAX_IMAGE_PIXELS = before


def orientation(image: Image.Image) -> Image.Transpose | None:
    """Returns what turns a loaded photograph upright; None if its EXIF data are damaged."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # pillow's parser raises anything, and the pixels are good
        return None


def explained(error: Exception, start: bytes, place: str | os.PathLike[str]) -> Unreadable:
    """Returns the error of one picture: the reason in words, and how to fix it.

    Example:
      >>> print(explained(UnidentifiedImageError(), b"<html>", "cat/1.jpg"))
      cannot read the image cat/1.jpg (a text such as a web page, not an image); download it again

    Args:
      error: what was raised by `upright` or `header`.
      start: the first bytes of the picture, 64 or more if it has them.
      place: what to call it.
    """
    if isinstance(error, Unreadable):
        return Unreadable(error.reason, error.mend, place)
    if not start:
        return Unreadable("the file is empty", _REPAIR, place)
    if isinstance(error, UnidentifiedImageError):
        return Unreadable(*_recognized(start), place)
    if isinstance(error, Image.DecompressionBombError):
        return Unreadable(
            "it could be a decompression bomb", "make it smaller, or remove it", place
        )
    reason = " ".join(cut(str(error) or type(error).__name__).split())
    return Unreadable(reason, _REPAIR, place)


def _recognized(start: bytes) -> tuple[str, str]:
    """Says what a file is that Pillow cannot identify, and what to do."""
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        return "a HEIC photograph", _HEIF
    for beginning, reason, mend in _BEGINNINGS:
        if start.startswith(beginning):
            return reason, mend
    return "not an image that pillow can read", _REPAIR
