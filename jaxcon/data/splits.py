"""Datasets as they are here: three splits of uint8 images, with labels or captions.

The images are in memory, or are read one at a time.

>>> import numpy as np
>>> split = Split(np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 1, 0, 1], np.int32))
>>> len(split), split.image_shape, split.in_memory
(4, (8, 8, 1), True)
>>> len(PairSplit(split, (("a", "one"), ("b",), ("c",), ("d",))))
4
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Protocol, runtime_checkable

import numpy as np

from jaxcon.data.messages import cut, listed, shown

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.1


class DataError(ValueError):
    """The data cannot be used as asked; the message is one line that says how to fix it.

    Attributes:
      path: path of the image file that is to blame, if there is one.
    """

    path: str | os.PathLike[str] | None = None


class Unreadable(DataError):
    """One image cannot be read.

    Example:
      >>> print(Unreadable("the file is empty", "remove it", "cat/1.png"))
      cannot read the image cat/1.png (the file is empty); remove it

    Args:
      reason: why.
      mend: what to do.
      path: path of its file; None if the image is in memory.
    """

    def __init__(self, reason: str, mend: str, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(reason, mend, path)  # the arguments, so that it survives pickling
        self.reason, self.mend, self.path = reason, mend, path

    def __str__(self) -> str:
        name = "" if self.path is None else f" {shown(self.path)}"
        return f"cannot read the image{name} ({self.reason}); {self.mend}"


@runtime_checkable
class ImageSource(Protocol):
    """Random access to images that stay on disk. Must be picklable: Grain's workers get a copy.

    `source[i]` is a uint8 array of `shape`.
    """

    shape: tuple[int, int, int]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> np.ndarray: ...


@runtime_checkable
class StoredImages(Protocol):
    """Random access to pictures as they are stored. Must be picklable: Grain's workers get a copy.

    `stored[i]` is what a file contains, or pixels: uint8 `[height, width, channels]` with 1, 3 or 4
    channels.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> bytes | np.ndarray: ...

    def place(self, index: int, /) -> str:
        """What messages call the picture: its path; its member and shard; its row and table."""
        ...


@dataclasses.dataclass(frozen=True)
class Split:
    """Images with or without labels.

    Args:
      images: uint8 `[n, height, width, channels]`, or an `ImageSource` if they do not fit into memory.
      labels_or_reader: int32 `[n]`; None for images without classes; or a function that reads them,
        called at most once and only when they are needed (on disk the labels lie between the images).
      names: what the user calls each image, such as its path in the folder; None if unnamed. A
        `Texts` takes little memory.
      originals: the same pictures as they are stored, of which training takes its random crops; None
        if `images` are the originals themselves, small and of one size.
      zoom: share of an original's shorter side that `images` show (`pixels.fit`), in (0, 1].
    """

    images: np.ndarray | ImageSource
    labels_or_reader: np.ndarray | Callable[[], np.ndarray] | None = None
    names: Sequence[str] | None = None
    originals: StoredImages | None = None
    zoom: float = 1.0

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> np.ndarray | None:
        """int32 `[n]`, or None."""
        if callable(self.labels_or_reader):
            object.__setattr__(self, "labels_or_reader", self.labels_or_reader())
        return self.labels_or_reader  # pyright: ignore[reportReturnType]

    @property
    def in_memory(self) -> bool:
        return isinstance(self.images, np.ndarray)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels), the same for every image."""
        height, width, channels = self.images.shape[-3:]
        return height, width, channels


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Three splits that share no image.

    Args:
      name: the name under which it was requested.
      train: images to learn from.
      validation: images for choosing settings.
      test: images for the final table.
      class_names: None if there are no classes.
      notes: phrases on how a folder was understood, and what was left out and why.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Says in one line what was found: images, classes, splits, side, what was left out."""
        names = self.class_names
        classes = f" of {len(names)} classes ({listed(map(cut, names), 5)})" if names else ""
        parts = (self.train, self.validation, self.test)
        return summarize(f"images{classes}", parts, self.train, self.notes)


@dataclasses.dataclass(frozen=True)
class PairSplit:
    """Images, each with one caption or more.

    Args:
      images: without labels.
      captions: the captions of each image, at least one.
      grades: for each image, how specific each caption is, from 1; None if unknown.
      attributes: labels by the name of the attribute, int32 `[n]`; -1 if an image has none (a scene
        of several objects has no single colour).
      counts: number of objects in each image, int32 `[n]`, or None.
    """

    images: Split
    captions: Sequence[tuple[str, ...]]
    grades: tuple[tuple[int, ...], ...] | None = None
    attributes: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    counts: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.captions)


@dataclasses.dataclass(frozen=True)
class PairDataset:
    """Three splits that share no image.

    Args:
      name: the name under which it was requested.
      train: images and captions to learn from.
      validation: those for choosing settings.
      test: those for the final table.
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
        """Says in one line what was found: images, captions, splits, side."""
        parts = (self.train, self.validation, self.test)
        captions = sum(len(texts) for part in parts for texts in part.captions)
        what = f"images with {captions:,} captions"
        return summarize(what, parts, self.train.images, self.notes)


def summarize(what: str, parts: Sequence[Sized], images: Split, notes: Sequence[str]) -> str:
    """Says in one line what was found, for `Dataset` and `PairDataset`.

    Example:
      >>> split = Split(np.zeros((4, 8, 8, 1), np.uint8))
      >>> summarize("images", [split, split, split], split, ["files of 9 x 8"])
      'found 12 images: 4 train, 4 validation, 4 test; read at 8 x 8 pixels; files of 9 x 8'

    Args:
      what: what the sizes of `parts` count.
      parts: training, validation and test examples.
      images: the images of one of them.
      notes: further phrases.
    """
    counts = [len(part) for part in parts]
    train, validation, test = (f"{count:,}" for count in counts)
    height, width, _ = images.image_shape
    return "; ".join(
        [
            f"found {sum(counts):,} {what}: {train} train, {validation} validation, {test} test",
            f"read at {width} x {height} pixels",
            *notes,
        ]
    )


def require_images(parts: Mapping[str, Sized], place: str) -> None:
    """Raises a DataError if a split has too few images to train, to choose settings or to test.

    A test image is shown next to its nearest neighbour, and a training image is told from another.
    """
    counts = {part: len(examples) for part, examples in parts.items()}
    if counts["train"] < 2 or counts["validation"] < 1 or counts["test"] < 2:
        divided = ", ".join(f"{count} {part}" for part, count in counts.items())
        raise DataError(
            f"{place}: {sum(counts.values())} images are too few ({divided}); expected at least 8 "
            "of some class, or folders train, validation and test of at least 2, 1 and 2"
        )


def split_indices(
    keys: Sequence[str],
    labels: np.ndarray | None = None,
    *,
    test_share: float = TEST_SHARE,
    validation_share: float = VALIDATION_SHARE,
) -> dict[str, np.ndarray]:
    """Divides examples into train, validation and test: the same way on every machine, always.

    Within each class (without `labels`, all examples are one class) the examples are put in the
    order of sha256(key). The first `round(test_share * n)` are test, the next
    `round(validation_share * n)` validation, the others train. No random generator is involved, whose
    stream might change between versions.

    Example:
      >>> parts = split_indices([f"{i}.png" for i in range(10)])
      >>> {name: len(indices) for name, indices in parts.items()}
      {'train': 7, 'validation': 1, 'test': 2}

    Args:
      keys: distinct identifiers of the examples, for instance their paths in the folder.
      labels: int `[n]`, or None.
      test_share: share of every class that is test, in [0, 1).
      validation_share: share of every class that is validation, in [0, 1).

    Returns:
      Increasing int64 indices for each of "train", "validation" and "test".
    """
    # A file's name need not be UTF-8; Python then keeps its bytes as surrogates.
    digests = [hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest() for key in keys]
    groups = np.zeros(len(keys), np.int64) if labels is None else np.asarray(labels)
    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for group in np.unique(groups):
        members = sorted(np.flatnonzero(groups == group).tolist(), key=digests.__getitem__)
        tests = round(test_share * len(members))
        others = tests + round(validation_share * len(members))
        parts["test"] += members[:tests]
        parts["validation"] += members[tests:others]
        parts["train"] += members[others:]
    return {name: np.array(sorted(indices), np.int64) for name, indices in parts.items()}
