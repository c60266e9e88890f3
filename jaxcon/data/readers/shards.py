"""The files that `tar:PATH` and `parquet:PATH` mean: one, a folder of them, or a pattern.

| PATH | files |
|---|---|
| `/data/train-{000..099}.tar` | braces: numbers with leading zeros, or words as in `{train,val}` |
| `/data/train-*.tar` | as in a shell |
| `/data/shards` | every .tar in the folder and below it |
| `gs://bucket/data/{000..099}.tar` | copied to the user's cache folder first |
"""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path

from jaxcon.data.messages import cut, listed, shown
from jaxcon.data.readers.cache import copy_missing, default_data_dir, one_process_at_a_time
from jaxcon.data.readers.paths import near
from jaxcon.data.splits import DataError
from jaxcon.stores import Store

_MOST = 1_000_000  # files of one pattern
_STORE = r"(gs|s3):/+(.+)"
_SPECIAL = r"[*?\[{]"


def expand(pattern: str) -> list[str]:
    """Returns the names that the braces of a pattern stand for.

    Example:
      >>> expand("{train,val}-{08..10}.tar")
      ['train-08.tar', 'train-09.tar', 'train-10.tar', 'val-08.tar', 'val-09.tar', 'val-10.tar']

    Raises:
      DataError: for braces that are neither numbers nor words, or too many names.
    """
    pieces = re.split(r"\{([^{}]*)\}", pattern)
    choices = [_choices(p, pattern) if i % 2 else [p] for i, p in enumerate(pieces)]
    number = 1
    for choice in choices:
        number *= len(choice)
    if number > _MOST:
        raise DataError(f"{cut(pattern)} means {number:,} files; expected at most {_MOST:,}")
    return ["".join(names) for names in itertools.product(*choices)]


def _choices(inside: str, pattern: str) -> Sequence[str]:
    if found := re.fullmatch(r"(\d+)\.\.(\d+)", inside):
        first, last = int(found[1]), int(found[2])
        width = max(len(found[1]), len(found[2])) if "0" in (found[1][0], found[2][0]) else 0
        if first <= last < first + _MOST:
            return [f"{number:0{width}}" for number in range(first, last + 1)]
    elif "," in inside:
        return inside.split(",")
    raise DataError(
        f"{cut(pattern)}: {{{cut(inside)}}} is neither a range of at most {_MOST:,} numbers such as "
        "{000..099} nor words such as {train,val}"
    )


def find_shards(pattern: str, kind: str, endings: Sequence[str]) -> list[Path]:
    """Returns the files that a pattern means, in order; those of a store after copying them.

    Args:
      pattern: what follows `tar:` or `parquet:`.
      kind: "tar" or "parquet", for messages.
      endings: of such files, in lower case.

    Raises:
      DataError: if there are none, or one that the pattern names is missing.
      StoreError: if a store cannot be read.
    """
    if not pattern.strip():
        raise DataError(
            f"{kind}: names no file (a shell variable that is empty?); expected a path such as "
            f"{kind}:/data/{{000..099}}{endings[0]}"
        )
    if found := re.fullmatch(_STORE, pattern, re.DOTALL):
        files = _copied(found[1], found[2], kind, endings)
    else:
        files = _here(pattern, kind, endings)
    return list(dict.fromkeys(files))


def _here(pattern: str, kind: str, endings: Sequence[str]) -> list[Path]:
    try:
        whole = Path(pattern).expanduser()
        if whole.is_dir():
            return _below(whole, kind, endings)
        names = [pattern] if whole.exists() else expand(str(whole))
        paths = [Path(name) for name in names]
        found = [
            sorted(map(Path, glob.glob(str(path)))) if _is_glob(path) else [path] for path in paths
        ]
        missing = [path for path, files in zip(paths, found, strict=True) if not _exist(files)]
    except (OSError, RuntimeError, ValueError) as error:  # a long name; ~ of somebody unknown
        if isinstance(error, DataError):
            raise
        raise DataError(f"{kind}:{cut(pattern)} cannot be opened ({cut(str(error))})") from error
    if missing and len(missing) == len(paths):
        hint = near(missing[0]) if not _is_glob(missing[0]) else ""
        raise DataError(
            f"there is no file {shown(missing[0])}{hint}; {kind}: takes {endings[0]} files, a folder "
            f"of them, or a pattern such as {{000..099}}{endings[0]} (in quotes, as shells expand it)"
        )
    if missing:
        raise DataError(
            f"{len(missing):,} of {len(paths):,} files of {cut(pattern)} are missing "
            f"({listed(shown(path.name) for path in missing)}); bring them, or name those that exist"
        )
    return [file for files in found for file in files]


def _is_glob(path: Path) -> bool:
    return glob.has_magic(str(path)) and not path.exists()


def _exist(files: Sequence[Path]) -> bool:
    return bool(files) and all(file.exists() for file in files)


def _below(folder: Path, kind: str, endings: Sequence[str]) -> list[Path]:
    found = sorted(
        Path(top, name)
        for top, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(tuple(endings)) and not name.startswith(".")
    )
    if not found:
        raise DataError(
            f"there is no {endings[0]} file in {shown(folder)} or below it; {kind}: takes such files"
        )
    return found


def _copied(scheme: str, path: str, kind: str, endings: Sequence[str]) -> list[Path]:
    """Returns files of a store, below the cache folder, after copying what is not there yet."""
    special = re.search(_SPECIAL, path)
    plain = path if special is None else path[: special.start()]
    is_file = special is not None or plain.lower().endswith(tuple(endings))
    folder = plain.rpartition("/")[0] if is_file else plain.rstrip("/")
    if not folder:
        raise DataError(f"{kind}:{scheme}://{cut(path)} names no bucket")
    store = Store(f"{scheme}://{folder}")
    sizes = store.sizes()
    wanted = [posixpath.relpath(name, folder) for name in expand(path)] if is_file else ["*"]
    names = sorted(
        name
        for name in sizes
        if name.lower().endswith(tuple(endings))
        and any(fnmatch.fnmatchcase(name, w) for w in wanted)
    )
    exact = [name for name in wanted if not re.search(r"[*?\[]", name)]
    if gone := sorted(set(exact) - set(names)) or ([] if names else wanted):
        raise DataError(
            f"{store.url}: {len(gone):,} of {len(wanted):,} files are missing "
            f"({listed(map(cut, gone))}); bring them, or name those that exist"
        )
    root = default_data_dir() / store.url.replace("://", "/")
    with one_process_at_a_time(root.parent, root.name):
        copy_missing(store, root, {name: sizes[name] for name in names})
    return [root / name for name in names]
