"""What the folders above images mean: splits, classes, or just a folder around everything.

    cat/1.jpg  dog/1.jpg                    classes
    train/cat/1.jpg  Test/cat/9.jpg         splits, in any usual spelling, and classes below them
    pets/cat/1.jpg  pets/dog/1.jpg          the outer folder means nothing
    1.jpg  2.png                            no classes

Anything ambiguous is refused: a split mistaken for a class would train on test images.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from jaxcon.data.messages import listed, shown
from jaxcon.data.readers.split_words import (
    HELD_OUT,
    SAY_NOTHING,
    SPLIT_WORDS,
    split_of,
    splits_of,
    telling_words,
)
from jaxcon.data.splits import TEST_SHARE, VALIDATION_SHARE, DataError, split_indices

_WITHOUT = "sort them into classes, or move that folder away: then some of train is held out"


class Layout(NamedTuple):
    """What the folders say of each image.

    Attributes:
      keys: paths from the innermost folder around all images, which decide the split of an image. They
        stay the same if the folder is copied into another one, or to a disk that encodes accents
        differently.
      splits: "train", "validation" or "test" for each image; None if the folder has no splits.
      classes: name of each image's class; None if there are fewer than two.
      notes: phrases that say how the folders were understood.
    """

    keys: list[str]
    splits: list[str] | None
    classes: list[str] | None
    notes: list[str]


def read_layout(root: str, images: Sequence[str], *, by: str = "folders") -> Layout:
    """Returns what the folders above images mean.

    Args:
      root: the folder that was requested, for messages.
      images: paths from there, at least one, with "/" between folders.
      by: what the outermost folders are, if not folders, for messages.

    Raises:
      DataError: if splits and other folders are siblings, a split has two folders or lies inside a
        class, a split has no classes or others than train, or an image lies next to the classes.
    """
    outer, place, inner = _inside(root, images)
    keys = [unicodedata.normalize("NFC", path) for path in inner]
    notes: list[str] = []
    own = _own_splits(place, inner, notes)
    splits = [own[path.split("/")[0]] for path in inner] if own else None
    below = _below_splits(inner) if own else inner
    if own:
        notes.append(_split_note(outer, own, by))
    else:
        _refuse_splits_in_classes(place, inner)
    names = [
        unicodedata.normalize("NFC", path.split("/")[0]) if "/" in path else None for path in below
    ]
    if len({name for name in names if name}) < 2:
        only = next((name for name in names if name), PurePosixPath(outer).name)
        notes.append(
            f"one folder of images ({shown(only)}), so no classes" if only else "no classes"
        )
        return Layout(keys, splits, None, notes)
    if outer and not own:
        notes.append(f"classes by the folders in {shown(outer)}")
    _refuse_strays(place, names, inner, splits)
    classes = [name for name in names if name is not None]
    notes += _compare(place, splits or ["train"] * len(classes), classes)
    return Layout(keys, splits, classes, notes)


def read_splits(
    root: str, images: Sequence[str], *, by: str = "folders", inside: bool = False
) -> Layout:
    """Returns what the folders above images mean if they are not classes, as with captions.

    Example:
      >>> read_splits("birds", ["train/1.jpg", "val/2.jpg"]).splits
      ['train', 'validation']

    Args:
      root: the folder that paths start at, for messages.
      images: paths, at least one, with "/" between folders.
      by: what the outermost folders are, if not folders, for messages.
      inside: whether keys are paths from the innermost folder around all images, as those of
        `read_layout`; else from `root`.

    Raises:
      DataError: if splits and other folders are siblings, or a split has two folders.
    """
    outer, place, inner = _inside(root, [path.lstrip("/") for path in images])
    own = _own_splits(place, inner, [])
    splits = [own[path.split("/")[0]] for path in inner] if own else None
    keys = [unicodedata.normalize("NFC", path) for path in inner] if inside else [*images]
    return Layout(keys, splits, None, [_split_note(outer, own, by)] if own else [])


def divide(
    layout: Layout, labels: np.ndarray | None = None, train_share: float | None = None
) -> dict[str, np.ndarray]:
    """Returns the indices of each split: the folder's own, and held-out training images for the rest.

    Args:
      layout: from `read_layout` or `read_splits`.
      labels: int `[n]`, or None.
      train_share: share of the images that is train, where no split is the folder's own; two thirds
        of the rest are test, one third validation. None: 0.7.
    """
    rest = None if train_share is None else (1 - train_share) / 3
    homes = np.array(layout.splits or ["train"] * len(layout.keys))
    parts = {part: np.flatnonzero(homes == part) for part in SPLIT_WORDS}
    carved = split_indices(
        [layout.keys[i] for i in parts["train"].tolist()],
        None if labels is None else labels[parts["train"]],
        test_share=0.0 if len(parts["test"]) else TEST_SHARE if rest is None else 2 * rest,
        validation_share=(
            0.0 if len(parts["validation"]) else VALIDATION_SHARE if rest is None else rest
        ),
    )
    own = {part: positions for part, positions in parts.items() if part != "train"}
    made = {part: parts["train"][positions] for part, positions in carved.items()}
    return {part: own[part] if len(own.get(part, ())) else made[part] for part in parts}


def _inside(root: str, images: Sequence[str]) -> tuple[str, str, list[str]]:
    """Returns the folder around all images, its name for messages, and the paths from there."""
    outer = _outer_folder(images)
    inner = [path[len(outer) + 1 :] if outer else path for path in images]
    return outer, shown(f"{root}/{outer}" if outer else root), inner


def _split_note(outer: str, own: Mapping[str, str], by: str) -> str:
    folders = (f"{outer}/{name}" if outer else name for name in sorted(own))
    return f"splits by the {by} {listed(map(shown, folders))}"


def _outer_folder(images: Sequence[str]) -> str:
    """Returns the innermost folder that holds all images, in it or below it."""
    folders = {path.rpartition("/")[0] for path in images}  # few, of a million images
    common = PurePosixPath(min(folders)).parts
    for folder in folders:
        parts = PurePosixPath(folder).parts
        while common != parts[: len(common)]:
            common = common[:-1]
    return "/".join(common)


def _own_splits(place: str, inner: Sequence[str], notes: list[str]) -> dict[str, str]:
    """Returns the split that each folder is; empty if they are none."""
    tops = sorted({path.split("/")[0] for path in inner if "/" in path})
    meant = splits_of(tops)
    others = [top for top in tops if top not in meant]
    others += [path for path in inner if "/" not in path]
    if not meant:
        return {}
    names, splits = listed(map(shown, meant)), set(meant.values())
    flat = all(path.count("/") == 1 for path in inner if path.split("/")[0] in meant)
    held_out = any(set(telling_words(name)) & HELD_OUT for name in others)
    if splits == {"train"} and others and flat and not held_out:
        notes.append(f"the folder {names} is treated as a class")  # among other vehicles
        return {}
    if others:
        raise DataError(
            f"{place} has splits ({names}) next to something else "
            f"({listed(map(shown, others))}); move that away, or rename what is a class"
        )
    if "train" not in splits:
        raise DataError(f"{place}: it has {names} and no folder train; expected one")
    for split in sorted(splits):
        if len(twice := [shown(top) for top in tops if meant[top] == split]) > 1:
            raise DataError(
                f"{place}: {' and '.join(twice)} are both names of the {split} split; expected one "
                "folder for it"
            )
    return meant


def _refuse_splits_in_classes(place: str, inner: Sequence[str]) -> None:
    below = defaultdict(set)
    for parts in (path.split("/") for path in inner):
        if len(parts) > 2:
            below[parts[0]].add(split_of(parts[1]))
    for name, splits in sorted(below.items()):
        if "train" in splits and splits & {"validation", "test"}:
            raise DataError(
                f"{place}: {shown(name)} has folders for train and other splits in it; expected "
                f"the splits outside, as in train/{shown(name)}"
            )


def _below_splits(inner: Sequence[str]) -> list[str]:
    """Returns paths from the class folders of each split: train/cat/1.jpg or train/train/cat/1.jpg."""
    groups: dict[str, list[str]] = defaultdict(list)
    for path in inner:
        top, _, rest = path.partition("/")
        groups[top].append(rest)
    doubled = {}
    for top, paths in groups.items():
        again = _outer_folder(paths).split("/")[0]
        says_nothing = split_of(again) == split_of(top) or again.lower() in SAY_NOTHING
        doubled[top] = len(again) + 1 if again and says_nothing else 0
    return [rest[doubled[top] :] for top, _, rest in (path.partition("/") for path in inner)]


def _refuse_strays(
    place: str, names: Sequence[str | None], inner: Sequence[str], splits: Sequence[str] | None
) -> None:
    """Raises a DataError for an image that is in no class."""
    if None not in names:
        return
    stray = names.index(None)
    if splits and not any(n for n, s in zip(names, splits, strict=True) if s == splits[stray]):
        raise DataError(
            f"{place}: the {splits[stray]} images are in no class ({shown(inner[stray])}), others "
            f"are; {_WITHOUT}"
        )
    raise DataError(
        f"the folders in {place} are classes, but {shown(inner[stray])} lies in none of them; move it"
    )


def _compare(place: str, splits: Sequence[str], classes: Sequence[str]) -> Iterator[str]:
    """Yields phrases on classes that a split lacks, or that differ only in case.

    Raises:
      DataError: if no split has both of two such classes, as then they are one; or if a split and
        train have no class in common.
    """
    members: dict[str, set[str]] = defaultdict(set)
    for split, name in zip(splits, classes, strict=True):
        members[split].add(name)
    alike: dict[str, set[str]] = defaultdict(set)
    for name in classes:
        alike[name.casefold()].add(name)
    for spellings in (sorted(group) for group in alike.values() if len(group) > 1):
        names = " and ".join(map(shown, spellings))
        if all(len(names_of.intersection(spellings)) < 2 for names_of in members.values()):
            raise DataError(f"{place}: {names} differ only in case; give this class one name")
        yield f"the classes {names} differ only in case"
    for split, names_of in sorted(members.items()):
        if not names_of & members["train"]:
            these, those = (listed(map(shown, sorted(m))) for m in (names_of, members["train"]))
            raise DataError(
                f"{place}: {split} has no class of train ({these}; train has {those}); {_WITHOUT}"
            )
    if len(members["train"]) < 2:
        raise DataError(
            f"{place}: the training images are all of one class ({shown(min(members['train']))}); "
            "expected at least two, as in the other splits"
        )
    for split, names_of in sorted(members.items()):
        if missing := sorted(set(classes) - names_of):
            yield f"{split} lacks {listed(map(shown, missing))}"
