"""From the indexes of many files to examples: one order, keys and splits like those of a folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxcon.data.messages import counted, listed, shown
from jaxcon.data.readers.captioned_folder import require_different
from jaxcon.data.readers.examples import Examples, classes
from jaxcon.data.readers.index import Index, join
from jaxcon.data.readers.layout import Layout, read_layout, read_splits
from jaxcon.data.readers.split_words import split_of, splits_of
from jaxcon.data.splits import DataError, StoredImages, Unreadable

_BY = "files"  # what splits are told by, in messages


def examples_of(
    place: str,
    paths: Sequence[Path],
    indexes: Sequence[Index],
    kind: Callable[..., StoredImages],
    *,
    captions: bool,
    notes: Sequence[str] = (),
) -> Examples:
    """Returns the examples of many files.

    Args:
      place: what messages call them.
      paths: the files.
      indexes: what each holds.
      kind: the class of the pictures, a `StoredInShards`.
      captions: whether captions are wanted; then pictures without are left out.
      notes: phrases on what happened before.

    Raises:
      DataError: if there are no pictures, no captions, or splits that are ambiguous.
    """
    index, file = join(indexes)
    if not len(index.names):
        raise DataError(f"there are no images in {shown(place)} ({_found(paths)})")
    said = [_found(paths), *notes, *([listed(index.told)] if index.told else [])]
    names = _named(paths, index, file)
    order = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)
    if captions:
        having = index.captions.counts()[order] > 0
        if not having.any():
            raise DataError(
                f"{shown(place)} has no captions; expected a .txt, or a .json with caption, beside "
                "each picture of a tar file, or a column caption in parquet"
            )
        if left := int((~having).sum()):
            said.append(f"left out: {counted(left, 'image')} without a caption")
        order = order[having]
    names = [names[row] for row in order.tolist()]
    index, file = _ordered(index, order), file[order]
    layout, labels, class_names = _understood(place, names, index, captions=captions)
    if captions:
        require_different(place, index.captions)
    stored = kind(paths, file, index.starts, index.lengths, index.names)
    bad = {
        row: Unreadable(reason, mend, stored.place(row))
        for row, (reason, mend) in index.errors().items()
    }
    return Examples(
        place=place,
        stored=stored,
        sizes=index.sizes,
        layout=layout,
        bad=bad,
        labels=labels,
        class_names=class_names,
        captions=index.captions if captions else None,
        notes=tuple(said),
    )


def _found(paths: Sequence[Path]) -> str:
    total = sum(path.stat().st_size for path in paths)
    size = f"{total / 1e9:,.1f} GB" if total >= 1e9 else f"{total / 1e6:,.1f} MB"
    return f"{counted(len(paths), f'{paths[0].suffix} file')} of {size}"


def _named(paths: Sequence[Path], index: Index, file: np.ndarray) -> list[str]:
    """Returns a different name for each picture, as its path would be in a folder.

    In front stands its split, where the names of the files say that, and where its own path does not.
    Of names that several pictures have, the name of the tar or parquet file in front of the last part
    tells them apart.
    """
    stems = _stems(paths)
    homes = _splits_of_files(stems)
    names = list(index.names)
    count = Counter(names)
    files = file.tolist()
    for row, name in enumerate(names):
        if count[name] > 1:
            folder, slash, last = name.rpartition("/")
            name = f"{folder}{slash}{stems[files[row]].replace(os.sep, ':')}:{last}"
        home = homes[files[row]] if homes else None
        if home and split_of(name.split("/")[0]) != home:
            name = f"{home}/{name}"
        names[row] = name
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise DataError(f"the picture {shown(twice)} is there twice; remove one")
    return names


def _stems(paths: Sequence[Path]) -> list[str]:
    """Returns paths from the folder around all, without endings."""
    folder = os.path.commonpath([os.path.abspath(path.parent) for path in paths])
    return [
        os.path.splitext(os.path.relpath(path, folder))[0] for path in map(os.path.abspath, paths)
    ]


def _splits_of_files(stems: Sequence[str]) -> list[str] | None:
    """Returns the split that each file's name, or its folder's, means; None if they mean none.

    Example:
      >>> _splits_of_files(["pets-train-000", "pets-train-001", "pets-val-000"])
      ['train', 'train', 'validation']
      >>> _splits_of_files(["000", "001"]) is None
      True
    """
    tops = [stem.split(os.sep)[0] for stem in stems]
    meant = splits_of(sorted(set(tops)))
    if not meant or set(meant.values()) == {"train"}:
        return None
    if others := [top for top in tops if top not in meant]:
        raise DataError(
            f"the files {listed(map(shown, meant))} are named by splits, but "
            f"{listed(map(shown, others))} is not; rename it, or leave it out"
        )
    if "train" not in meant.values():
        raise DataError(f"there are files {listed(map(shown, meant))} and none for train; add some")
    return [meant[top] for top in tops]


def _ordered(index: Index, order: np.ndarray) -> Index:
    place = np.full(len(index.names), -1, np.int64)
    place[order] = np.arange(len(order))
    kept = place[index.bad] >= 0
    return index._replace(
        names=index.names.take(order),
        starts=index.starts[order],
        lengths=index.lengths[order],
        labels=index.labels[order],
        captions=index.captions.take(order),
        sizes=index.sizes[order],
        bad=place[index.bad][kept],
        reasons=index.reasons.take(np.flatnonzero(kept)),
    )


def _understood(
    place: str, names: list[str], index: Index, *, captions: bool
) -> tuple[Layout, np.ndarray | None, tuple[str, ...] | None]:
    """Returns the layout, the labels and the names of classes: from the files, or from the folders."""
    if captions:
        return read_splits(place, names, by=_BY), None, None
    if (index.labels >= 0).any():
        layout = read_splits(place, names, by=_BY, inside=True)
        known, numbers = classes(index.classes, by_number=True)
        labels = np.append(numbers, np.int32(-1))[index.labels]
        if len(known) < 2:
            layout.notes.append(f"one class ({shown(min(known))}), so no classes")
            return layout, None, None
        return layout, labels, known
    layout = read_layout(place, names, by=_BY)
    known, labels = classes(layout.classes) if layout.classes else (None, None)
    return layout, labels, known
