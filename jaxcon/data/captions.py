"""`load_pairs`: images with captions, from the scenes we ship, a user's folder, or a TFDS name.

>>> split = PairSplit(Split(np.zeros((1, 8, 8, 3), np.uint8)), (("a dark square", "nothing"),))
>>> len(split), split.images.image_shape
(1, (8, 8, 3))
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxcon.data.image_files import FolderImages, check_images, size_note
from jaxcon.data.layout import divide, read_splits
from jaxcon.data.messages import cut, printable, shown
from jaxcon.data.paths import user_path
from jaxcon.data.pixels import default_side
from jaxcon.data.sources import MEMORY_LIMIT, refuse_path
from jaxcon.data.splits import DataError, Split, require_images, summarize
from jaxcon.data.table import find_table, read_table
from jaxcon.data.table_rows import unread_splits

_WANTED = "a folder with images and a table of captions"
_FEWEST = 10  # images that leave at least one for validation and two for the test


@dataclasses.dataclass(frozen=True)
class PairSplit:
    """Images, each with one caption or more.

    Args:
      images: without labels.
      captions: for each image its captions, at least one.
      grades: for each image how specific each caption is, from 1; None where nobody knows.
      attributes: labels by the name of the attribute, int32 `[n]`; -1 where an image has none (a
        scene of several objects has no one colour).
      counts: objects in each image, int32 `[n]`, or None.
    """

    images: Split
    captions: tuple[tuple[str, ...], ...]
    grades: tuple[tuple[int, ...], ...] | None = None
    attributes: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    counts: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.captions)


@dataclasses.dataclass(frozen=True)
class PairDataset:
    """Three splits that share no image.

    Args:
      name: as it was asked for.
      train: images and captions to learn from.
      validation: those to choose settings on.
      test: those for the last table.
      classes: names of the values of each attribute.
      notes: phrases on what was found in a folder.
    """

    name: str
    train: PairSplit
    validation: PairSplit
    test: PairSplit
    classes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line that says what was found: images, captions, splits, side."""
        parts = (self.train, self.validation, self.test)
        captions = sum(len(texts) for part in parts for texts in part.captions)
        what = f"images with {captions:,} captions"
        return summarize(what, parts, self.train.images, self.notes)


def load_pairs(
    dataset: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> PairDataset:
    """Loads images with captions; splits and the other arguments are those of `sources.load`.

    - `"scenes"`: pictures made up by `jaxcon.data.scenes`, with grades and attributes.
    - `"folder:PATH"`: a table (`jaxcon.data.table`), or a folder with one; all captions of an image
      are in one split. Folders `train`, `validation` and `test` above the images are kept.
    - a TFDS name with captions, such as `"coco_captions"`; images without any are left out.

    Raises:
      DataError: with one line that says what is wrong, in which row, and how to mend it.
    """
    if image_size is not None and image_size < 1:
        raise DataError(f"image_size must be at least 1, got {image_size}")
    refuse_path(dataset)
    if dataset.startswith("folder:"):
        return _load_table(dataset, image_size, memory_limit)
    from jaxcon.data.captioned import load_captioned

    return load_captioned(
        dataset, data_dir=data_dir, image_size=image_size, memory_limit=memory_limit
    )


def _load_table(dataset: str, image_size: int | None, memory_limit: int) -> PairDataset:
    table = find_table(user_path(dataset.removeprefix("folder:"), _WANTED))
    captions = read_table(table)
    paths = sorted(captions)
    if len(paths) < _FEWEST:
        raise DataError(
            f"{shown(table)} names {len(paths)} images; expected at least {_FEWEST}, to be divided "
            "into train, validation and test"
        )
    _require_different(table, captions)
    layout = read_splits(str(table.parent), paths)
    rows_of = divide(layout)
    require_images(rows_of, shown(table))
    unread = [f"its column {cut(name)} is not read" for name in unread_splits(table)]
    files = [str(table.parent / path) for path in paths]
    sizes = check_images(files)
    image_size = image_size or default_side(sizes)
    shape = (image_size, image_size, 3)
    small = len(paths) * np.prod(shape) <= memory_limit

    def split(rows: Sequence[int]) -> PairSplit:
        images = FolderImages([files[i] for i in rows], shape)
        return PairSplit(
            Split(images.read_all() if small else images, names=tuple(paths[i] for i in rows)),
            tuple(tuple(captions[paths[i]]) for i in rows),
        )

    parts = {part: split(rows.tolist()) for part, rows in rows_of.items()}
    return PairDataset(
        name=printable(dataset),
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        notes=(f"table {shown(table.name)}", *layout.notes, *unread, size_note(sizes)),
    )


def _require_different(table: Path, captions: Mapping[str, Sequence[str]]) -> None:
    """Raises a DataError where one text is the caption of all: nothing can be learned from it."""
    texts = {text for of_image in captions.values() for text in of_image}
    if len(texts) == 1:
        raise DataError(
            f"{shown(table)}: all {len(captions):,} images have the caption {cut(texts.pop())}; "
            "expected captions that tell images apart"
        )
