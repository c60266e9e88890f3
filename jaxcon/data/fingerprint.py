"""Tells whether data has changed: digests of every split, and what differs if they do.

>>> from jaxcon.data.sources import load
>>> digits = fingerprint(load("digits"))
>>> digits.summary["train"]["images"], changes(digits, digits)
(1259, None)

Images in memory that are trained on are identified by their pixels. Image files are identified by their
size and three pieces of `_PIECE` bytes, at the beginning, in the middle and at the end; images in tar
or parquet files by their names and sizes, and by the names and sizes of these files; other images on
disk (of TensorFlow Datasets) by a sample of `_SAMPLE`. Place and date of a file do not matter.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from jaxcon.data.photographs import Photographs
from jaxcon.data.splits import DataError, Dataset, PairDataset, PairSplit, Split, StoredImages
from jaxcon.data.stored import StoredInShards, StoredRows, all_rows

_PARTS = ("train", "validation", "test")
_PIECE = 2**14
_SAMPLE = 64
_TOLD = 3  # names of a kind in a message
_LONGEST = 40  # characters of a name in a message


class Fingerprint(NamedTuple):
    """What distinguishes data from other data.

    Attributes:
      summary: number of images and digest of each split, and for a `Dataset` the names of its classes,
        in the order of their numbers: JSON values; what tells the files that many images each are
        in from others, by their names, if there are any.
      images: digests by the name of the image, for each split; empty if images have no names, or lie
        in such files.
    """

    summary: dict[str, Any]
    images: dict[str, dict[str, str]]


def fingerprint(dataset: Dataset | PairDataset) -> Fingerprint:
    """Computes the fingerprint of images with their labels, or with their captions.

    Example:
      >>> split = Split(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1]), ("a.png", "b.png"))
      >>> list(fingerprint(Dataset("x", split, split, split, ("a", "b"))).images["train"])
      ['a.png', 'b.png']
    """
    summary: dict[str, Any] = {}
    images: dict[str, dict[str, str]] = {}
    files: dict[str, str] = {}
    for part in _PARTS:
        split: Split | PairSplit = getattr(dataset, part)
        summary[part], images[part] = _of_split(split)
        files |= _files(split.images if isinstance(split, PairSplit) else split)
    if files:
        summary["files"] = files
    if isinstance(dataset, Dataset):
        summary["classes"] = dataset.class_names and [*dataset.class_names]
    return Fingerprint(summary, {part: v for part, v in images.items() if v})


def changes(before: Fingerprint, now: Fingerprint, *, ignore: Sequence[str] = ()) -> str | None:
    """Says in words what differs; None if nothing does.

    Example:
      >>> def of(**images):
      ...     summary = {"train": {"images": len(images), "digest": str(images)}}
      ...     return Fingerprint(summary, {"train": images})
      >>> changes(of(a="1", b="1"), of(a="2", c="1"))
      '1 image added (c), 1 image removed (b), 1 image replaced (a)'

    Args:
      before: fingerprint of the data that a run began with.
      now: fingerprint of the data at hand.
      ignore: names of images that are allowed to have changed.
    """
    if before.summary == now.summary:
        return None
    said = [*_changed_classes(before.summary.get("classes"), now.summary.get("classes"))]
    if before.images and now.images:
        differing = [*_changed_images(before.images, now.images, ignore)]
        if not said + differing and [*_changed_images(before.images, now.images, ())]:
            return None  # only what was allowed to change
        said += differing
    else:
        said += _changed_files(before.summary.get("files") or {}, now.summary.get("files") or {})
        said += _changed_splits(before.summary, now.summary) if not said else []
    return ", ".join(said) or "the labels, or the order of the images, differ"


def name_of(dataset: Dataset | PairDataset, error: DataError) -> str | None:
    """Returns the name of the image file that an error blames; None if the dataset has no such file."""
    for part in _PARTS:
        split: Any = getattr(dataset, part)
        split = split.images if isinstance(split, PairSplit) else split
        stored = _stored(split)
        if stored is None or split.names is None or error.path is None:
            continue
        for row, name in enumerate(split.names):
            if stored.place(row) == os.fspath(error.path):
                return name
    return None


def _stored(split: Split) -> StoredImages | None:
    """Returns the pictures of a split as they are stored; None if they are pixels."""
    if split.originals is None and isinstance(split.images, Photographs):
        return StoredRows(split.images.stored, split.images.rows)
    return split.originals


def _in_shards(split: Split) -> bool:
    stored = _stored(split)
    return stored is not None and isinstance(all_rows(stored)[0], StoredInShards)


def _files(split: Split) -> dict[str, str]:
    """Returns what tells files that hold many pictures each from others, by their names."""
    stored = _stored(split)
    inner = None if stored is None else all_rows(stored)[0]
    return inner.shards() if isinstance(inner, StoredInShards) else {}


def _of_split(split: Split | PairSplit) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the summary of a split, and the digests of its images by name."""
    images = split.images if isinstance(split, PairSplit) else split
    told = _captions(split) if isinstance(split, PairSplit) else None
    whole = hashlib.sha256()
    if images.names is None or _in_shards(images):
        for piece in _nameless(images) if images.names is None else _members(images):
            whole.update(piece)
        digests = {}
        for caption in told or ():
            whole.update(caption)
    else:
        pixels = _named(images)
        rows = (
            pixels
            if told is None
            else [f"{p} {_hex(c)}" for p, c in zip(pixels, told, strict=True)]
        )
        digests = dict(zip(images.names, rows, strict=True))
        whole.update(repr(list(digests.items())).encode())
    if isinstance(images.labels_or_reader, np.ndarray):
        whole.update(np.asarray(images.labels_or_reader, np.int64).tobytes())
    return {"images": len(images), "digest": whole.hexdigest()}, digests


def _captions(split: PairSplit) -> Iterator[bytes]:
    grades = split.grades or itertools.repeat(None, len(split))
    return (repr(row).encode() for row in zip(split.captions, grades, strict=True))


def _members(split: Split) -> Iterator[bytes]:
    stored: Any
    stored, rows = all_rows(_stored(split))  # pyright: ignore[reportArgumentType]
    for row, name in zip(rows.tolist(), split.names or (), strict=True):
        length = int(stored.lengths[row])
        # Of a picture in a file of its own, the table only tells where it is.
        yield repr((name, length if length >= 0 else _of_file(stored.place(row)))).encode()


def _nameless(split: Split) -> Iterator[Any]:
    images: Any = split.images
    yield str(images.shape[-3:]).encode()
    if isinstance(images, np.ndarray):
        yield np.ascontiguousarray(images)
    else:
        yield str(len(images)).encode()
        for index in np.unique(np.linspace(0, len(images) - 1, _SAMPLE).astype(int)):
            yield np.ascontiguousarray(images[int(index)])


def _named(split: Split) -> list[str]:
    """Computes a digest for each image."""
    stored = _stored(split)
    if stored is None:
        return [_hex(np.ascontiguousarray(split.images[i])) for i in range(len(split))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(_of_file, map(stored.place, range(len(split)))))


def _of_file(path: str) -> str:
    pieces = [str(size := os.path.getsize(path)).encode()]
    with open(path, "rb") as file:
        for start in sorted({0, max(0, size // 2 - _PIECE // 2), max(0, size - _PIECE)}):
            file.seek(start)
            pieces.append(file.read(_PIECE))
    return _hex(b"".join(pieces))


def _hex(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    both = before.keys() & now.keys()
    for names, what in (
        (now.keys() - both, "added"),
        (before.keys() - both, "removed"),
        ({name for name in both if before[name] != now[name]}, "replaced"),
    ):
        if names:
            yield _some("file", sorted(names), what)


def _changed_classes(before: Any, now: Any) -> Iterator[str]:
    if before == now:
        return
    if not isinstance(before, list) or not isinstance(now, list):
        yield f"{_some('class', before or ())} before, {_some('class', now or ())} now"
        return
    added = [name for name in now if name not in before]
    removed = [name for name in before if name not in now]
    if added:
        yield _some("class", added, "added")
    if removed:
        yield _some("class", removed, "removed")
    if not added and not removed:
        yield "the classes are in another order"


def _changed_images(
    before: Mapping[str, Mapping[str, str]],
    now: Mapping[str, Mapping[str, str]],
    ignore: Sequence[str],
) -> Iterator[str]:
    old = {name: digest for images in before.values() for name, digest in images.items()}
    new = {name: digest for images in now.values() for name, digest in images.items()}
    both = [name for name in new if name in old and name not in ignore]
    # A digest of pixels, and one of captions where there are any.
    replaced = [name for name in both if new[name].split()[0] != old[name].split()[0]]
    edited = [name for name in both if new[name].split()[1:] != old[name].split()[1:]]
    if added := [name for name in new if name not in old]:
        yield _some("image", added, "added")
    if removed := [name for name in old if name not in new]:
        yield _some("image", removed, "removed")
    if replaced:
        yield _some("image", replaced, "replaced")
    if edited:
        yield f"captions of {_some('image', edited)} edited"
    if not (added or removed):
        moved = [n for part in now for n in now[part] if n not in before.get(part, {})]
        if moved:
            yield _some("image", moved, "moved to another split")


def _changed_splits(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for part in _PARTS:
        old, new = before.get(part) or {}, now.get(part) or {}
        if old.get("images") != new.get("images"):
            yield f"{part} has {new.get('images')} images, had {old.get('images')}"
        elif old != new:
            yield f"other images, labels or captions in {part}"


def _some(noun: str, names: Sequence[str], what: str = "") -> str:
    """Says how many, what happened to them, and the first names.

    Example:
      >>> _some("image", ["a.png", "b.png", "c.png", "d.png"], "removed")
      '4 images removed (a.png, b.png, c.png, ...)'
    """
    cut = [n if len(n) <= _LONGEST else "…" + n[1 - _LONGEST :] for n in map(str, names[:_TOLD])]
    more = ", ..." if len(names) > _TOLD else ""
    plural = "" if len(names) == 1 else "es" if noun == "class" else "s"
    listed = f" ({', '.join(cut)}{more})" if cut else ""
    return f"{len(names):,} {noun}{plural}{what and ' '}{what}{listed}"
