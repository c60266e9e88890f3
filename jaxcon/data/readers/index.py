"""What a file of many pictures holds, in arrays: a million rows in tens of megabytes, cached on disk.

A file is indexed once. Its index lies in the user's cache folder, with the size and the date of the
file at that time; a file of another size or date is indexed again. So is one that was indexed where
pillow could read other kinds of pictures, and one that names pictures in files of their own, which may
change behind its back.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcon.data.encoded import EXTENSIONS
from jaxcon.data.messages import counted, listed, shown
from jaxcon.data.readers.cache import default_data_dir
from jaxcon.data.splits import DataError, Unreadable
from jaxcon.data.texts import Grouped, Texts

_VERSION = 2  # of the format of an index
IN_A_FILE = -1  # the length of a picture that is a file of its own


class Index(NamedTuple):
    """The pictures of one file, or of several.

    Attributes:
      names: what each is called.
      starts: where its bytes begin in the file, or its row: int64 `[n]`.
      lengths: its bytes: int64 `[n]`.
      labels: which of `classes` it has: int32 `[n]`; -1 for none.
      classes: what the file calls its classes.
      captions: the captions of each picture; none of all, if the file has none.
      sizes: (height, width) as stored: int32 `[n, 2]`; 0 if it cannot be read.
      bad: which cannot be read: int64 `[k]`.
      reasons: why, and what to do, of each of those: two texts.
      told: phrases on what was left out.
    """

    names: Texts
    starts: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    classes: Texts
    captions: Grouped
    sizes: np.ndarray
    bad: np.ndarray
    reasons: Grouped
    told: Texts

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(array.nbytes for array in _arrays(self).values())

    def errors(self) -> dict[int, tuple[str, str]]:
        """Returns the reason and the mend of each picture that cannot be read, by its row."""
        rows = zip(self.bad.tolist(), self.reasons, strict=True)
        return {row: (reason, mend) for row, (reason, mend) in rows}


def make_index(
    names: Sequence[str],
    starts: Sequence[int],
    lengths: Sequence[int],
    *,
    labels: Sequence[str | None] | None,
    captions: Sequence[Sequence[str]] | None,
    sizes: Sequence[tuple[int, int] | Unreadable],
    told: Sequence[str] = (),
) -> Index:
    """Packs what was found in a file; the arguments are those of `Index`, row by row.

    Example:
      >>> index = make_index(
      ...     ["a.jpg"], [512], [90], labels=["cat"], captions=None, sizes=[Unreadable("empty", "go")]
      ... )
      >>> index.classes, index.sizes.tolist(), index.errors()
      (Texts.of(['cat']), [[0, 0]], {0: ('empty', 'go')})
    """
    labels = labels or [None] * len(names)
    classes = sorted({label for label in labels if label is not None})
    numbers = {name: number for number, name in enumerate(classes)}
    bad = [(row, size) for row, size in enumerate(sizes) if isinstance(size, Unreadable)]
    pairs = [(0, 0) if isinstance(size, Unreadable) else size for size in sizes]
    return Index(
        names=Texts.of(names),
        starts=np.array(starts, np.int64),
        lengths=np.array(lengths, np.int64),
        labels=np.array([numbers.get(label, -1) for label in labels], np.int32),  # pyright: ignore
        classes=Texts.of(classes),
        captions=Grouped.of(captions or [()] * len(names)),
        sizes=np.array(pairs, np.int32).reshape(-1, 2),
        bad=np.array([row for row, _ in bad], np.int64),
        reasons=Grouped.of([(error.reason, error.mend) for _, error in bad]),
        told=Texts.of(told),
    )


def join(parts: Sequence[Index]) -> tuple[Index, np.ndarray]:
    """Returns the rows of several files, one after the other, and of which file each is: int32."""
    classes = sorted({name for part in parts for name in part.classes})
    numbers = {name: number for number, name in enumerate(classes)}
    counts = [len(part.names) for part in parts]
    firsts = np.cumsum([0, *counts[:-1]])
    maps = [np.array([*(numbers[n] for n in part.classes), -1], np.int32) for part in parts]
    index = Index(
        names=Texts.join([part.names for part in parts]),
        starts=np.concatenate([part.starts for part in parts]),
        lengths=np.concatenate([part.lengths for part in parts]),
        labels=np.concatenate([m[part.labels] for m, part in zip(maps, parts, strict=True)]),
        classes=Texts.of(classes),
        captions=Grouped.join([part.captions for part in parts]),
        sizes=np.concatenate([part.sizes for part in parts]),
        bad=np.concatenate([part.bad + f for part, f in zip(parts, firsts, strict=True)]),
        reasons=Grouped.join([part.reasons for part in parts]),
        told=Texts.join([part.told for part in parts]),
    )
    return index, np.repeat(np.arange(len(parts), dtype=np.int32), counts)


def indexed(
    paths: Sequence[Path], kind: str, read: Callable[[str], Index]
) -> tuple[list[Index], list[str]]:
    """Returns the index of each file, from the cache or by reading it, and what to tell.

    Args:
      paths: the files.
      kind: "tar" or "parquet", a folder in the cache.
      read: makes the index of a file.

    Raises:
      DataError: what `read` raises, for the first file.
    """
    folder = default_data_dir() / kind
    changed: list[str] = []

    def one(path: Path) -> Index:
        return _cached(os.fspath(path), folder, read, changed)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(one, paths))
    names = sorted(changed)
    said = f"{counted(len(names), 'file')} changed since last time ({listed(map(shown, names))})"
    return found, [said] if names else []


def _cached(path: str, folder: Path, read: Callable[[str], Index], changed: list[str]) -> Index:
    place = os.path.abspath(path)
    file = folder / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:32]}.npz"
    try:
        state = os.stat(path)
    except OSError as error:
        raise DataError(f"cannot read {shown(path)}: {error.strerror}") from error
    readable = int(hashlib.sha256(repr(EXTENSIONS).encode()).hexdigest()[:15], 16)
    stamp = np.array([_VERSION, readable, state.st_size, state.st_mtime_ns], np.int64)
    with contextlib.suppress(Exception):  # none yet, damaged, or of another version
        with np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        before = arrays.pop("stamp")
        if (before == stamp).all() and (arrays["lengths"] != IN_A_FILE).all():
            return _index(arrays)
        if (before[:2] == stamp[:2]).all() and (before != stamp).any():
            changed.append(os.path.basename(path))
    index = read(path)
    with contextlib.suppress(OSError):  # a cache is no duty: a full disk, or one to be read only
        folder.mkdir(parents=True, exist_ok=True)
        _write(file, {"stamp": stamp, **_arrays(index)})
    return index


def _write(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes all or nothing: others may read, or write the same."""
    handle, draft = tempfile.mkstemp(dir=file.parent, suffix=".draft")
    try:
        with os.fdopen(handle, "wb") as out:
            np.savez(out, **arrays)  # pyright: ignore[reportArgumentType]
        os.replace(draft, file)
    except BaseException:
        os.unlink(draft)
        raise


def _arrays(index: Index) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for name, value in index._asdict().items():
        if isinstance(value, Grouped):
            arrays[f"{name}.groups"], value = value.edges, value.texts
        if isinstance(value, Texts):
            arrays[f"{name}.edges"] = value.edges
            value = np.frombuffer(value.block, np.uint8)
        arrays[name] = value
    return arrays


def _index(arrays: dict[str, np.ndarray]) -> Index:
    values: dict[str, Any] = {}
    for name in Index._fields:
        values[name] = arrays[name]
        if f"{name}.edges" in arrays:
            values[name] = Texts(arrays[name].tobytes(), arrays[f"{name}.edges"])
        if f"{name}.groups" in arrays:
            values[name] = Grouped(values[name], arrays[f"{name}.groups"])
    return Index(**values)
