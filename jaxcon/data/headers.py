"""The size of a picture by its first and last bytes: what a check of a million pictures reads.

>>> import io
>>> from PIL import Image
>>> content = io.BytesIO()
>>> Image.new("RGB", (6, 4)).save(content, "JPEG")
>>> quick_size(content.getvalue(), content.getvalue()[-8:])
(4, 6)
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from jaxcon.data.encoded import ENDS, explained, opened, upright
from jaxcon.data.splits import Unreadable

HEAD, TAIL = 2**11, 8  # bytes that most headers fit into, and that tell of an end
_START = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"
# Markers of JPEG's frame headers, which have the size; 0xC4, 0xC8 and 0xCC mean other things.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def quick_size(head: bytes, tail: bytes) -> tuple[int, int] | None:
    """Returns (height, width) of a JPEG or PNG that ends as it should; None if only Pillow can tell.

    Args:
      head: the first bytes; where the size lies beyond them, as after a thumbnail, the answer is None.
      tail: the last `TAIL` bytes.
    """
    if head.startswith(_START) and len(head) >= 24 and tail.endswith(ENDS["PNG"]):
        return _sane(int.from_bytes(head[20:24], "big"), int.from_bytes(head[16:20], "big"))
    if not head.startswith(b"\xff\xd8\xff") or not tail.endswith(ENDS["JPEG"]):
        return None
    place = 2
    while place + 9 <= len(head) and head[place] == 0xFF:
        marker = head[place + 1]
        if marker in _FRAMES:
            height, width = head[place + 5 : place + 7], head[place + 7 : place + 9]
            return _sane(int.from_bytes(height, "big"), int.from_bytes(width, "big"))
        place += 2 + int.from_bytes(head[place + 2 : place + 4], "big")
    return None


def _sane(height: int, width: int) -> tuple[int, int] | None:
    limit = Image.MAX_IMAGE_PIXELS
    good = height > 0 and width > 0 and not (limit and height * width > 2 * limit)
    return (height, width) if good else None


def size_or_error(
    head: bytes, tail: bytes, content: Callable[[], bytes], place: str
) -> tuple[int, int] | Unreadable:
    """Returns (height, width) of a picture as stored, or what is wrong with it.

    A JPEG, PNG or GIF without its end, the sign of an interrupted copy, is decoded.

    Args:
      head: the first `HEAD` bytes.
      tail: the last `TAIL` bytes.
      content: returns all bytes; called if those do not say enough.
      place: what to call it.
    """
    if (size := quick_size(head, tail)) is not None:
        return size
    try:
        data = content()
        with opened(io.BytesIO(data)) as image:
            size, end = (image.height, image.width), ENDS.get(image.format or "", b"")
        if not data.endswith(end):
            upright(io.BytesIO(data))
    except Exception as error:  # pillow's decoders raise anything on damaged files
        return explained(error, head[:64], place)
    return size


def size_of(content: bytes | np.ndarray, place: str) -> tuple[int, int] | Unreadable:
    """Returns (height, width) of a picture that is at hand, or what is wrong with it.

    Example:
      >>> print(size_of(b"<html>", "row 3"))
      cannot read the image row 3 (a text such as a web page, not an image); download it again
    """
    if isinstance(content, np.ndarray):
        return content.shape[0], content.shape[1]
    return size_or_error(content[:HEAD], content[-TAIL:], lambda: content, place)
