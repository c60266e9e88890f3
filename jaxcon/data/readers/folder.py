"""A user's own images: `folder:PATH`.

    pets/cat/1.jpg  pets/cat/2.png  pets/dog/1.jpg      two classes: the folders directly below PATH
    pets/1.jpg      pets/2.png                          no classes: labels are None
    pets/train/cat/1.jpg  pets/test/cat/9.jpg           splits of your own, and classes below them

`walk` finds the images, `layout` interprets the folders, `assembly` makes a dataset. Splits that the
folder does not define are made by `splits.split_indices` from the paths: 20 % of every class is test,
10 % validation, so that a copy of the folder on another machine has the same test images.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from jaxcon.data.image_files import look_at_images
from jaxcon.data.messages import listed, shown
from jaxcon.data.readers.examples import Examples, classes
from jaxcon.data.readers.layout import read_layout
from jaxcon.data.readers.paths import user_path
from jaxcon.data.readers.table import KINDS
from jaxcon.data.readers.walk import Found, find_images
from jaxcon.data.splits import DataError
from jaxcon.data.stored import StoredFiles

_WANTED = "the path of a folder of images"
_USUAL = ".jpg .png .webp .gif .tif .bmp"


def find_in_folder(path: str) -> Examples:
    """Finds the images below a folder, and their classes.

    Args:
      path: what follows `folder:`.

    Raises:
      DataError: if there are none, or the folders around them are ambiguous.
    """
    root = _root(path)
    found = find_images(root)
    if not found.images:
        raise DataError(_nothing_found(root, found))
    layout = read_layout(str(root), found.images)
    class_names, labels = classes(layout.classes) if layout.classes else (None, None)
    files = [str(root / file) for file in found.images]
    sizes, bad = look_at_images(files)
    return Examples(
        place=str(root),
        stored=StoredFiles(files),
        sizes=sizes,
        layout=layout,
        bad=bad,
        labels=labels,
        class_names=class_names,
        notes=tuple(_notes(found)),
    )


def _root(path: str) -> Path:
    root = user_path(path, _WANTED)
    if not root.is_dir():
        table = root.suffix.lower() in KINDS
        hint = ", a table of captions, which experiments.clip reads" if table else ""
        raise DataError(f"{shown(root)} is a file{hint}; folder: takes {_WANTED}")
    return root


def _nothing_found(root: Path, found: Found) -> str:
    left_out = f"; left out: {'; '.join(found.left_out)}" if found.left_out else ""
    return (
        f"there are no images in {shown(root)} or below it{left_out} (looked for "
        f"{_USUAL} and whatever else pillow reads)"
    )


def _notes(found: Found) -> list[str]:
    """Says where the images lie, and what was left out."""
    above = {"", *(str(folder) for file in found.images for folder in PurePosixPath(file).parents)}
    empty = [f for f in found.folders if f not in above and os.path.dirname(f) in above]
    notes = []
    if empty:
        notes.append(f"no image in {listed(map(shown, empty))}")
    if found.left_out:
        notes.append(f"left out: {', '.join(found.left_out)}")
    return notes
