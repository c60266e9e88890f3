"""Image files: which kinds are read, what is wrong with one, and reading them now or later.

>>> import tempfile
>>> from PIL import Image
>>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
...     Image.new("L", (6, 4), 7).save(file.name)
...     check_images([file.name]).tolist(), read_image(file.name, 2).shape
([[4, 6]], (2, 2, 3))
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from jaxcon.data.messages import cut, listed, shown
from jaxcon.data.pixels import Shape, fit, to_rgb
from jaxcon.data.splits import DataError, Unreadable

Value = TypeVar("Value")

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
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB\x60\x82", "GIF": b";"}
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


def read_image(path: str | os.PathLike[str], side: int | None) -> np.ndarray:
    """Reads an image as uint8 `[height, width, 3]`, upright; fits it to a square if `side` is given.

    Raises:
      DataError: if the file cannot be decoded; names it, with the reason and how to fix it.
    """
    try:
        with _opened(path) as opened:
            image = to_rgb(opened)
            if (turn := _turn(opened)) is not None:
                image = image.transpose(turn)
    except Exception as error:  # pillow's decoders raise anything on damaged files
        raise _explained(path, error) from error
    return np.asarray(image if side is None else fit(image, side))


def check_images(paths: Sequence[str | os.PathLike[str]]) -> np.ndarray:
    """Returns the sizes of image files, reading only their headers: seconds for 10,000 files.

    A JPEG, PNG or GIF without its end, the sign of an interrupted copy, is decoded.

    Args:
      paths: at least one path.

    Returns:
      (height, width) of each, as stored: int `[n, 2]`.

    Raises:
      DataError: if files cannot be read; names the first few, with their reasons.
    """
    return np.array(_map(_read_size, paths))


def size_note(sizes: np.ndarray) -> str:
    """Describes the sizes of files in the order that cameras use: width x height.

    Example:
      >>> size_note(np.array([[30, 20], [768, 1024], [64, 64]]))
      'files from 20 x 30 to 1024 x 768'
    """
    order = np.argsort(sizes.prod(axis=1), kind="stable")
    (low, small), (high, large) = sizes[order[0]].tolist(), sizes[order[-1]].tolist()
    if (sizes == sizes[0]).all():
        return f"files of {small} x {low}"
    return f"files from {small} x {low} to {large} x {high}"


class FolderImages:
    """Image files that are read when asked for, as an `ImageSource`."""

    def __init__(self, paths: Sequence[str], shape: Shape) -> None:
        self.paths = tuple(paths)
        self.shape = shape

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int, /) -> np.ndarray:
        return read_image(self.paths[index], self.shape[0])

    def read_all(self) -> np.ndarray:
        """Reads all images into one uint8 array `[n, side, side, 3]`.

        Raises:
          DataError: if files cannot be read; names the first few, with their reasons.
        """
        images = np.empty((len(self), *self.shape), np.uint8)

        def read(row: int) -> None:
            images[row] = self[row]

        _map(read, range(len(self)))
        return images


def _map(read: Callable[[Any], Value], items: Sequence[Any]) -> list[Value]:
    """Reads all items in threads, as decoding releases the GIL; raises once for all that fail."""

    def attempt(item: Any) -> Value | Unreadable:
        try:
            return read(item)
        except Unreadable as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(attempt, items))
    failed = [result for result in results if isinstance(result, Unreadable)]
    if len(failed) == 1:
        raise failed[0]
    if failed:
        named = listed(f"{shown(error.path or '')} ({error.reason})" for error in failed)
        mends = {error.mend: None for error in failed}
        raise DataError(
            f"cannot read {len(failed):,} of {len(items):,} images: {named}; {listed(mends, 2)}"
        ) from failed[0]
    return [result for result in results if not isinstance(result, Unreadable)]


def _read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    try:
        with _opened(path) as image:
            width, height = image.size
            end = _ENDS.get(image.format or "", b"")
    except Exception as error:
        raise _explained(path, error) from error
    with open(path, "rb") as file:
        file.seek(-len(end), os.SEEK_END)
        ended = file.read() == end
    if not ended:
        read_image(path, None)
    return height, width


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Opens an image of a size that Pillow does not refuse, to be decoded within the context.

    Pillow warns of a decompression bomb from half that size on; a large photograph is not one.
    """
    limit = _reading[0] if _reading else Image.MAX_IMAGE_PIXELS
    with open(path, "rb") as file:
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


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Returns what turns a loaded photograph upright; None if its EXIF data are damaged."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # pillow's parser raises anything, and the pixels are good
        return None


def _explained(path: str | os.PathLike[str], error: Exception) -> Unreadable:
    """Returns the error of one file: the reason in words, and how to fix it."""
    if isinstance(error, Unreadable):
        return Unreadable(error.reason, error.mend, path)
    if isinstance(error, FileNotFoundError):
        return Unreadable(
            error.strerror or "no such file", "bring the file back, or name one that exists", path
        )
    if "\0" in os.fspath(path):
        return Unreadable("no file has a name with a NUL in it", "fix the name", path)
    if isinstance(error, OSError) and error.strerror:  # of the system, not of a decoder
        return Unreadable(error.strerror, "make the file readable, or remove it", path)
    with open(path, "rb") as file:
        start = file.read(64)
    if not start:
        return Unreadable("the file is empty", _REPAIR, path)
    if isinstance(error, UnidentifiedImageError):
        return Unreadable(*_recognized(start), path)
    if isinstance(error, Image.DecompressionBombError):
        return Unreadable("it could be a decompression bomb", "make it smaller, or remove it", path)
    return Unreadable(" ".join(cut(str(error) or type(error).__name__).split()), _REPAIR, path)


def _recognized(start: bytes) -> tuple[str, str]:
    """Says what a file is that Pillow cannot identify, and what to do."""
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        return "a HEIC photograph", _HEIF
    for beginning, reason, mend in _BEGINNINGS:
        if start.startswith(beginning):
            return reason, mend
    return "not an image that pillow can read", _REPAIR
