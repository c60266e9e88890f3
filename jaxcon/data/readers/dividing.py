"""Which of the pictures that a reader found are for training, for validation and for testing."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxcon.data.messages import counted, listed, shown
from jaxcon.data.readers.examples import Examples, Wishes, chosen
from jaxcon.data.readers.layout import divide
from jaxcon.data.splits import DataError, require_images, split_indices


class Part(NamedTuple):
    """The pictures of one split: their numbers among those that were found."""

    examples: Examples
    rows: np.ndarray


def divided(
    examples: Examples, validation: Examples | None, wishes: Wishes
) -> tuple[dict[str, Part], list[str]]:
    """Returns where the pictures of each split are, and phrases on how they were understood.

    Those that cannot be read stay in train, where others replace them, and leave the other splits.

    Args:
      examples: pictures to learn from, and to be held out.
      validation: pictures to choose settings by and to test on, in place of held-out ones.
      wishes: of the caller.

    Raises:
      DataError: if a split has too few pictures, or pictures of a split have classes of their own.
    """
    examples, notes = _without_unlabelled_test(examples)
    notes = [*examples.layout.notes, *notes]
    rows = divide(examples.layout, examples.labels, wishes.train_share)
    if wishes.train_share is not None:
        _require_share(examples, wishes.train_share, divided=validation is None)
    parts = {which: Part(examples, found) for which, found in rows.items()}
    if validation is not None:
        validation, said = _without_unlabelled_test(validation)
        parts, more = _with_validation(examples, validation)
        notes += [*more, *said]
    for which, part in parts.items():
        if part.examples.bad and which != "train":
            good = ~np.isin(part.rows, list(part.examples.bad))
            parts[which] = part._replace(rows=part.rows[good])
    places = dict.fromkeys(shown(part.examples.place) for part in parts.values())
    require_images({which: part.rows for which, part in parts.items()}, " and ".join(places))
    return parts, notes


def _without_unlabelled_test(examples: Examples) -> tuple[Examples, list[str]]:
    """Leaves out a test split without classes, as competitions have; validation is tested on then."""
    labels, splits = examples.labels, examples.layout.splits
    if labels is None or (labels >= 0).all():
        return examples, []
    homes = np.array(splits or ["train"] * len(examples))
    unknown = labels < 0
    if (homes == "test").any() and (unknown == (homes == "test")).all():
        kept = np.flatnonzero(~unknown)
        renamed = ["test" if homes[i] == "validation" else str(homes[i]) for i in kept]
        note = f"test has no classes ({int(unknown.sum()):,} images left out)"
        if "test" in renamed:
            note += ", so validation is tested on"
        return chosen(examples, kept, renamed), [note]
    first = examples.layout.keys[int(np.flatnonzero(unknown)[0])]
    raise DataError(
        f"{shown(examples.place)}: {counted(int(unknown.sum()), 'image')} of {len(examples):,} have "
        f"no class ({shown(first)}), others have; give them one, or remove them"
    )


def _require_share(examples: Examples, train_share: float, *, divided: bool) -> None:
    own = set(examples.layout.splits or ())
    if not divided or own >= {"validation", "test"}:
        raise DataError(
            f"train_share={train_share}: nothing is to be divided, as validation and test images are "
            f"given{'' if divided else ' by validation_dataset'}; leave it out"
        )


def _with_validation(examples: Examples, validation: Examples) -> tuple[dict[str, Part], list[str]]:
    """Returns all of the first for training, and the second for validation and test."""
    validation = _same_classes(examples, validation)
    homes = np.array(examples.layout.splits or ["train"] * len(examples))
    train = np.flatnonzero(homes == "train")
    notes = [f"validation and test images from {shown(validation.place)}"]
    if left := len(examples) - len(train):
        notes.append(f"left out: {counted(left, 'image')} of other splits beside them")
    theirs = np.array(validation.layout.splits or ["test"] * len(validation))
    own = {which: np.flatnonzero(theirs == which) for which in ("validation", "test")}
    if not all(map(len, own.values())):
        held = np.flatnonzero(theirs != "train")
        halves = split_indices(
            [validation.layout.keys[i] for i in held.tolist()],
            None if validation.labels is None else validation.labels[held],
            test_share=0.5,
            validation_share=1.0,
        )
        own = {which: held[halves[which]] for which in own}
    parts = {which: Part(validation, rows) for which, rows in own.items()}
    return {"train": Part(examples, train), **parts}, notes


def _same_classes(examples: Examples, validation: Examples) -> Examples:
    """Returns the second with the numbers that its classes have in the first."""
    if examples.class_names is None and validation.class_names is None:
        return validation
    names, theirs = examples.class_names or (), validation.class_names or ()
    odd = [name for name in theirs if name not in names]
    if not names or not theirs or odd:
        told = listed(map(shown, odd)) if names and theirs else "only one of both has classes"
        raise DataError(
            f"{shown(validation.place)} has other classes than {shown(examples.place)} ({told}); give "
            "both the same names"
        )
    numbers = np.array([names.index(name) for name in theirs], np.int32)
    return dataclasses.replace(validation, labels=numbers[validation.labels])
