"""The splits of a dataset from pictures that a reader found: what is read now, and what later."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxcon.data.bad_images import SKIPPED_SHARE, too_many_to_skip
from jaxcon.data.image_files import size_note, unreadable
from jaxcon.data.messages import counted, listed, printable, shown
from jaxcon.data.photographs import Photographs
from jaxcon.data.pixels import default_side, default_zoom
from jaxcon.data.readers.dividing import Part, divided
from jaxcon.data.readers.examples import Examples, Wishes, take
from jaxcon.data.replacing import ReplacingPhotographs
from jaxcon.data.splits import DataError, Dataset, PairDataset, PairSplit, Split
from jaxcon.data.stored import StoredRows
from jaxcon.data.texts import Texts


def image_dataset(
    name: str, examples: Examples, wishes: Wishes, validation: Examples | None = None
) -> Dataset:
    """Divides pictures, with or without classes, into splits; see `sources.load`.

    Args:
      name: what was asked for.
      examples: pictures to learn from, and to be held out.
      wishes: of the caller.
      validation: pictures to choose settings by and to test on, in place of held-out ones.
    """
    bad = _told_of_bad([examples, *([validation] if validation else [])], wishes)
    parts, notes = divided(examples, validation, wishes)
    splits, more = _splits(parts, wishes)
    return Dataset(
        name=printable(name),
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        class_names=examples.class_names,
        notes=(*notes, *more, *bad),
    )


def pair_dataset(
    name: str, examples: Examples, wishes: Wishes, validation: Examples | None = None
) -> PairDataset:
    """Divides pictures with captions into splits, like `image_dataset`; see `captions.load_pairs`."""
    bad = _told_of_bad([examples, *([validation] if validation else [])], wishes)
    parts, notes = divided(examples, validation, wishes)
    splits, more = _splits(parts, wishes)
    pairs = {
        which: PairSplit(split, take(part.examples.captions or (), part.rows))
        for (which, part), split in zip(parts.items(), splits.values(), strict=True)
    }
    return PairDataset(
        name=printable(name),
        train=pairs["train"],
        validation=pairs["validation"],
        test=pairs["test"],
        notes=(*notes, *more, *bad),
    )


def _splits(parts: dict[str, Part], wishes: Wishes) -> tuple[dict[str, Split], list[str]]:
    """Returns the splits, and phrases on what was found."""
    train = parts["train"].examples
    sizes = train.sizes[train.sizes.all(axis=1)]
    side = wishes.image_size or default_side(sizes)
    zoom, shape = default_zoom(sizes), (side, side, 3)
    found = list({id(part.examples): part.examples for part in parts.values()}.values())
    every = np.concatenate([e.sizes[e.sizes.all(axis=1)] for e in found])
    # Of a picture that cannot be read, training has to take another, so it reads them one by one.
    as_they_are = bool((every == side).all()) and zoom == 1 and not train.bad
    small = sum(len(part.rows) for part in parts.values()) * side * side * 3 <= wishes.memory_limit

    def split(which: str, part: Part) -> Split:
        examples, rows = part
        labels = None if examples.labels is None else examples.labels[rows]
        if wishes.bad_images == "skip":
            views = ReplacingPhotographs(examples.stored, shape, rows, labels, zoom=zoom)
        else:
            views = Photographs(examples.stored, shape, rows, zoom=zoom)
        at_once = small and (as_they_are or which != "train")
        return Split(
            views.read_all() if at_once else views,
            labels,
            names=Texts.of(examples.layout.keys[row] for row in rows.tolist()),
            originals=None if as_they_are else StoredRows(examples.stored, rows),
            zoom=zoom,
        )

    splits = {which: split(which, part) for which, part in parts.items()}
    return splits, [size_note(every), *(note for e in found for note in e.notes)]


def _told_of_bad(examples: Sequence[Examples], wishes: Wishes) -> list[str]:
    """Returns a phrase on pictures that cannot be read.

    Raises:
      DataError: if there are any, or too many to skip; names the first few, with their reasons.
    """
    bad = [error for found in examples for error in found.bad.values()]
    total = sum(map(len, examples))
    if not bad:
        return []
    if wishes.bad_images == "error":
        raise unreadable(bad, total)
    if too_many_to_skip(len(bad), total):
        raise DataError(f"{unreadable(bad, total)}; at most {SKIPPED_SHARE:.0%} can be skipped")
    places = listed(f"{shown(error.path or '')}: {error.reason}" for error in bad)
    return [f"cannot be read: {counted(len(bad), 'image')} ({places}), skipped"]
