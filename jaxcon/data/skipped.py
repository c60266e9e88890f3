"""Pictures that could not be read: counted, listed, and too many of them an error.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     log = SkippedLog(folder)
...     log(Bad(3, "cat/3.jpg", "image file is truncated"))
...     [bad.place for bad in read_skipped(folder)]
['cat/3.jpg']
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from jaxcon.data.bad_images import SKIPPED_SHARE, too_many_to_skip
from jaxcon.data.messages import listed, shown
from jaxcon.data.reading import Bad, Read
from jaxcon.data.splits import DataError


class Skipped:
    """Counts the pictures that a run could not read.

    Args:
      num_examples: number of pictures there are.
      on_bad: called once with each picture that could not be read.
    """

    def __init__(self, num_examples: int, on_bad: Callable[[Bad], None] | None = None) -> None:
        self._num_examples, self._on_bad = num_examples, on_bad
        self._seen = 0
        self._bad: dict[int, Bad] = {}

    def add(self, read: Read) -> None:
        """Counts some rows.

        Raises:
          DataError: if more than ten pictures could not be read, and more than 1 % of those seen.
        """
        self._seen += len(read.examples)
        for bad in read.bad:
            if bad.example not in self._bad:
                self._bad[bad.example] = bad
                if self._on_bad is not None:
                    self._on_bad(bad)
        seen = min(self._seen, self._num_examples)
        if too_many_to_skip(len(self._bad), seen):
            named = listed(f"{shown(bad.place)} ({bad.reason})" for bad in self._bad.values())
            raise DataError(
                f"cannot read {len(self._bad):,} of {seen:,} images seen, more than "
                f"{SKIPPED_SHARE:.0%}: {named}; repair them, or remove them"
            )


class SkippedLog:
    """Writes the pictures that could not be read to a run's folder, one line of JSON each.

    A resumed run goes on with the list and repeats none of it.

    Args:
      folder: the run's folder.
      process: number of this process; each but the first has a file of its own.
    """

    def __init__(self, folder: str | os.PathLike[str], process: int = 0) -> None:
        self._path = Path(folder) / (f"skipped-{process}.jsonl" if process else "skipped.jsonl")
        self._known = {bad.place for bad in _lines(self._path)}

    def __call__(self, bad: Bad) -> None:
        if bad.place not in self._known:
            self._known.add(bad.place)
            with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(json.dumps(bad._asdict()) + "\n")


def read_skipped(folder: str | os.PathLike[str]) -> list[Bad]:
    """Returns what all processes of a run have listed, each picture once; empty if there is no list.

    Example:
      >>> read_skipped("no-such-folder")
      []
    """
    every = [bad for path in sorted(Path(folder).glob("skipped*.jsonl")) for bad in _lines(path)]
    return list({bad.place: bad for bad in every}.values())


def _lines(path: Path) -> list[Bad]:
    rows = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return rows
    for line in text.splitlines():
        try:
            rows.append(Bad(**json.loads(line)))
        except (ValueError, TypeError):  # the end of a run that was killed as it wrote
            continue
    return rows
