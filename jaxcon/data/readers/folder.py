"""A user's own images: `folder:PATH`.

    pets/cat/1.jpg  pets/cat/2.png  pets/dog/1.jpg      two classes: the folders directly below PATH
    pets/1.jpg      pets/2.png                          no classes: labels are None
    pets/train/cat/1.jpg  pets/test/cat/9.jpg           splits of your own, and classes below them

`walk` finds the images, `layout` interprets the folders, `image_files` reads. Images become RGB
(grey repeated, transparent turned white) and square. Splits that the folder does not define are made
by `splits.split_indices` from the paths: 20 % of every class is test, 10 % validation, so that a copy
of the folder on another machine has the same test images.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import numpy as np

from jaxcon.data.encoded import EXTENSIONS
from jaxcon.data.image_files import FolderImages, check_images, read_image, size_note
from jaxcon.data.messages import listed, printable, shown
from jaxcon.data.pixels import default_side
from jaxcon.data.readers.layout import Layout, divide, read_layout
from jaxcon.data.readers.paths import user_path
from jaxcon.data.readers.table import KINDS
from jaxcon.data.readers.walk import Found, find_images
from jaxcon.data.splits import DataError, Dataset, Split, require_images

__all__ = ["EXTENSIONS", "FolderImages", "load_folder", "read_image"]

_WANTED = "the path of a folder of images"
_USUAL = ".jpg .png .webp .gif .tif .bmp"


def load_folder(path: str, *, image_size: int | None, memory_limit: int) -> Dataset:
    """Loads the images below `path`; see `sources.load`."""
    root = _root(path)
    found = find_images(root)
    if not found.images:
        raise DataError(_nothing_found(root, found))
    layout = read_layout(str(root), found.images)
    class_names, labels = _labels(layout)
    parts = divide(layout, labels)
    require_images(parts, shown(root))
    files = [str(root / file) for file in found.images]
    sizes = check_images(files)
    image_size = image_size or default_side(sizes)
    shape = (image_size, image_size, 3)
    small = len(files) * np.prod(shape) <= memory_limit

    def split(indices: np.ndarray) -> Split:
        images = FolderImages([files[i] for i in indices], shape)
        return Split(
            images.read_all() if small else images,
            None if labels is None else labels[indices],
            names=tuple(layout.keys[i] for i in indices.tolist()),
        )

    return Dataset(
        name=f"folder:{printable(path)}",
        train=split(parts["train"]),
        validation=split(parts["validation"]),
        test=split(parts["test"]),
        class_names=class_names,
        notes=(*layout.notes, *_notes(found, sizes)),
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


def _labels(layout: Layout) -> tuple[tuple[str, ...] | None, np.ndarray | None]:
    if layout.classes is None:
        return None, None
    names = sorted(set(layout.classes))
    numbers = {name: number for number, name in enumerate(names)}
    # Figures and tables show them.
    return tuple(map(printable, names)), np.array(
        [numbers[name] for name in layout.classes], np.int32
    )


def _notes(found: Found, sizes: np.ndarray) -> list[str]:
    """Says where the images lie, and what was left out."""
    above = {"", *(str(folder) for file in found.images for folder in PurePosixPath(file).parents)}
    empty = [f for f in found.folders if f not in above and os.path.dirname(f) in above]
    notes = [size_note(sizes)]
    if empty:
        notes.append(f"no image in {listed(map(shown, empty))}")
    if found.left_out:
        notes.append(f"left out: {', '.join(found.left_out)}")
    return notes
