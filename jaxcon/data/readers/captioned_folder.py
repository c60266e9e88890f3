"""A user's own images with a table of captions: `folder:PATH`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxcon.data.image_files import FolderImages, check_images, size_note
from jaxcon.data.messages import cut, printable, shown
from jaxcon.data.pixels import default_side
from jaxcon.data.readers.layout import divide, read_splits
from jaxcon.data.readers.paths import user_path
from jaxcon.data.readers.table import find_table, read_table
from jaxcon.data.readers.table_rows import unread_splits
from jaxcon.data.splits import DataError, PairDataset, PairSplit, Split, require_images

_WANTED = "a folder with images and a table of captions"
_FEWEST = 10  # images that leave at least one for validation and two for the test


def load_captioned_folder(
    dataset: str, *, image_size: int | None, memory_limit: int
) -> PairDataset:
    """Loads the images that a table names, with their captions; see `captions.load_pairs`."""
    table = find_table(user_path(dataset.removeprefix("folder:"), _WANTED))
    captions = read_table(table)
    paths = sorted(captions)
    if len(paths) < _FEWEST:
        raise DataError(
            f"{shown(table)} names {len(paths)} images; expected at least {_FEWEST}, to be split "
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
    """Raises a DataError if all images have the same caption: nothing can be learned from it."""
    texts = {text for of_image in captions.values() for text in of_image}
    if len(texts) == 1:
        raise DataError(
            f"{shown(table)}: all {len(captions):,} images have the caption {cut(texts.pop())}; "
            "expected captions that tell images apart"
        )
