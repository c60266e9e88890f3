"""The files that a table of captions names: found however they are spelled, each only once."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxcon.data.messages import VALUE, cut, shown
from jaxcon.data.readers.paths import near
from jaxcon.data.splits import DataError

Identity = tuple[int, int]


class TableImages:
    """Image files by the paths of a table.

    `images/1.jpg`, `./images/1.jpg`, an absolute path and a link to it are one image. So are
    spellings with Windows' backslashes, or with accents as another file system encodes them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[tuple[Path, str], Identity] = {}  # by how a table spells them
        self._spellings: dict[Identity, set[str]] = {}

    def find(self, place: str, image: str, caption: str, start: Path) -> Identity:
        """Returns the file of one row of a table in the folder `start`.

        Raises:
          DataError: if the image does not exist; names the row, and what may have been meant.
        """
        if (start, image) not in self._files:
            self._files[start, image] = self._look_up(place, image, caption, start)
        return self._files[start, image]

    def path(self, file: Identity) -> str:
        """Returns one spelling of a file, whatever the order of rows: from the folder if possible."""
        return min(self._spellings[file], key=lambda path: (os.path.isabs(path), path))

    def _look_up(self, place: str, image: str, caption: str, start: Path) -> Identity:
        for spelling in _spellings(image):
            path = os.path.normpath(start / spelling)
            try:
                state = os.stat(path)
            except (OSError, ValueError):
                continue
            if stat.S_ISREG(state.st_mode):
                file = state.st_dev, state.st_ino
                self._spellings.setdefault(file, set()).add(self._from_folder(path))
                return file
        raise DataError(f"{place}: {_missing(image, caption, start)}")

    def _from_folder(self, path: str) -> str:
        relative = os.path.relpath(path, self._folder)
        return os.path.abspath(path) if relative.startswith(os.pardir) else relative


def _is_file(path: Path) -> bool:
    return _is(stat.S_ISREG, path)


def _is(kind: Callable[[int], bool], path: Path) -> bool:
    try:
        return kind(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _spellings(image: str) -> Iterator[str]:
    for spelling in dict.fromkeys((image, image.replace("\\", "/"))):
        yield spelling
        yield unicodedata.normalize("NFC", spelling)
        yield unicodedata.normalize("NFD", spelling)


def _missing(image: str, caption: str, folder: Path) -> str:
    if "://" in image[:10]:
        return (
            f"the image is a web address, {cut(image)}; download the images, and write the "
            "paths of their files"
        )
    if _is(stat.S_ISDIR, folder / image):
        return f"the image {cut(image)} is a folder; name a file in it"
    if len(image) > VALUE:
        said = f"there is no image {cut(image)} ({len(image):,} characters)"
    else:
        said = f"there is no image {shown(folder / image)}"
    return f"{said}{_hint(image, caption, folder)}; paths start at the table's folder"


def _hint(image: str, caption: str, folder: Path) -> str:
    if _is_file(folder / caption):
        return "; the caption names one: are the columns image and caption swapped?"
    path = folder / image.replace("\\", "/")
    if _is_file(folder / path.name):
        return f"; did you mean {shown(path.name)}?"
    return near(path)
