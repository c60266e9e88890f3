"""Pictures of a page with text next to them: the text belongs to the page, in any script.

Drawn into a figure, a caption would need a font that has its letters, and a dollar sign would start
a formula; a browser has neither problem, and the reader can copy the text.
"""

import base64
import dataclasses
import io
from collections.abc import Sequence

import numpy as np

from jaxcon.report.text import escape

_SHOWN = 68  # pixels of the page for a picture, roughly: two columns of six fit side by side
_STORED = 192  # pixels of a side: more would only make the page heavy
_FINE = 32  # below, pixels are what there is to see: they are not blurred


@dataclasses.dataclass(frozen=True)
class Picture:
    """One image and the words below it.

    Attributes:
      image: `[height, width, 1 or 3]`, uint8, or floats in [0, 1].
      text: the text below it.
      framed: whether it has a frame, to tell it from its neighbours.
    """

    image: np.ndarray
    text: str = ""
    framed: bool = False


@dataclasses.dataclass(frozen=True)
class Strip:
    """Pictures side by side, with text before them and lines of text after them."""

    pictures: Sequence[Picture]
    before: str = ""
    after: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Strips, one below the other, with a sentence below them.

    Attributes:
      strips: strips from top to bottom.
      caption: the sentence below them.
      columns: number of columns of strips, if the screen is wide enough.
    """

    strips: Sequence[Strip]
    caption: str
    columns: int = 1


def gallery_html(gallery: Gallery) -> str:
    """Returns the gallery as HTML, its images inlined.

    Example:
      >>> strip = Strip([Picture(np.zeros((8, 8, 1), np.uint8), "a zero", framed=True)], before="0 < 1")
      >>> page = gallery_html(Gallery([strip], "One picture."))
      >>> "0 &lt; 1" in page, page.count("data:image/png"), "<figcaption>One picture." in page
      (True, 1, True)
    """
    rows = [_strip_html(strip) for strip in gallery.strips]
    height = max(1, -(-len(rows) // gallery.columns))
    columns = [rows[start : start + height] for start in range(0, len(rows), height)]
    tables = "".join(
        '<div class="scroll"><table class="gallery">\n{}\n</table></div>'.format("\n".join(column))
        for column in columns
    )
    return (
        f'<figure><div class="columns">{tables}</div>'
        f"<figcaption>{escape(gallery.caption)}</figcaption></figure>"
    )


def _strip_html(strip: Strip) -> str:
    before = f"<th>{escape(strip.before)}</th>" if strip.before else ""
    cells = "".join(f"<td>{_picture_html(picture)}</td>" for picture in strip.pictures)
    lines = "".join(f"<p>{escape(line)}</p>" for line in strip.after)
    after = f'<td class="after">{lines}</td>' if strip.after else ""
    return f"<tr>{before}{cells}{after}</tr>"


def _picture_html(picture: Picture) -> str:
    width = _shown_width(*picture.image.shape[:2])
    kinds = " ".join(
        name
        for name, wanted in (
            ("framed", picture.framed),
            ("coarse", max(picture.image.shape[:2]) < _FINE),
        )
        if wanted
    )
    data = base64.b64encode(_png(picture.image)).decode()
    text = escape(picture.text)
    below = f"<span>{text}</span>" if text else ""
    return (
        f'<img class="{kinds}" width="{width}" alt="{text}" src="data:image/png;base64,{data}">'
        f"{below}"
    )


def _shown_width(height: int, width: int) -> int:
    """Returns pixels of the page: a whole number for each pixel of a small picture.

    Example:
      >>> _shown_width(8, 8), _shown_width(64, 64), _shown_width(224, 224)
      (64, 64, 68)
    """
    longer = max(height, width)
    scale = _SHOWN // longer if longer <= _SHOWN else _SHOWN / longer
    return max(1, round(scale * width))


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    if image.dtype != np.uint8:
        image = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    picture.thumbnail((_STORED, _STORED))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()
