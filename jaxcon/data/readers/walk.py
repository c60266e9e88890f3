"""The images below a folder, each real file once, and what was left out and why.

Left out are hidden files and folders, those that operating systems and network storage keep next to
pictures (`__MACOSX`, `@eaDir`, `$RECYCLE.BIN`), and the folders of runs, whose figures are not data.
"""

from __future__ import annotations

import os
import stat
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from jaxcon.data.encoded import EXTENSIONS, UNREAD
from jaxcon.data.messages import counted, listed, shown

_SYSTEM_FOLDERS = {
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "@eadir",
    "@recently-snapshot",
    "@recycle",
    "@tmp",
    "__macosx",
    "__pycache__",
    "lost+found",
    "network trash folder",
    "recycler",
    "system volume information",
    "temporary items",
}
_SYSTEM_FILES = {"desktop.ini", "ehthumbs.db", "thumbs.db"}
# What the folder of a run holds: its configuration, and something that the run wrote.
_RUN, _OF_A_RUN = "config.json", {"checkpoints", "metrics.jsonl", "results.json"}


class Found(NamedTuple):
    """Paths from the root, with "/" between folders, in an order independent of the file system.

    Attributes:
      images: files that Pillow reads, by their names.
      folders: those that were entered, including the root (""), except those around runs.
      left_out: phrases that say what was not taken, and why.
    """

    images: list[str]
    folders: list[str]
    left_out: list[str]


def find_images(root: str | os.PathLike[str]) -> Found:
    """Finds the images below `root`; follows links, but never to an image it already has."""
    walk = _Walk(os.fspath(root))
    walk.enter("")
    while walk.links:
        walk.follow(walk.links.popleft())
    around = {str(folder) for run in walk.runs for folder in PurePosixPath(run).parents} - {"."}
    folders = sorted(set(walk.folders) - around)
    return Found(sorted(walk.images), folders, list(walk.left_out()))


class _Walk:
    """What has been seen so far. Links wait in a queue, so that real files come first."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.images: list[str] = []
        self.folders: list[str] = []
        self.runs: list[str] = []
        self.links: deque[str] = deque()
        self._closed: list[str] = []
        self._hidden: list[str] = []
        self._kinds: Counter[str] = Counter()
        self._broken = self._again = self._hidden_images = 0
        self._seen: set[tuple[int, int]] = set()

    def enter(self, top: str, *, linked: bool = False) -> None:
        """Takes everything below the folder `top`, except links."""
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            try:
                if not self._is_new(os.stat(self._path(folder))):
                    continue
                with os.scandir(self._path(folder)) as scan:
                    entries = sorted(scan, key=lambda entry: entry.name)
            except OSError as error:
                self._closed.append(f"{shown(folder or self.root)}: {error.strerror}")
                continue
            names = {entry.name for entry in entries}
            if _RUN in names and names & _OF_A_RUN:
                self.runs.append(folder)
                continue
            self.folders.append(folder)
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if self._is_hidden(entry, path):
                    continue
                if entry.is_symlink():
                    self.links.append(path)
                elif entry.is_dir():
                    waiting.append(path)
                elif not self._is_taken(path, entry, linked=linked):
                    break

    def follow(self, path: str) -> None:
        """Takes what a link leads to, except back to the root or above it."""
        try:
            state = os.stat(self._path(path))
        except OSError:
            self._broken += 1
            return
        if not stat.S_ISDIR(state.st_mode):
            self._take(path, state, linked=True)
            return
        target, root = os.path.realpath(self._path(path)), os.path.realpath(self.root)
        if os.path.commonpath([target, root]) != target:
            self.enter(path, linked=True)

    def _path(self, path: str) -> str:
        return os.path.join(self.root, path) if path else self.root

    def _is_new(self, state: os.stat_result) -> bool:
        before = len(self._seen)
        self._seen.add((state.st_dev, state.st_ino))
        return len(self._seen) > before

    def _is_hidden(self, entry: os.DirEntry[str], path: str) -> bool:
        name, dotted = entry.name.casefold(), entry.name.startswith(".")
        if entry.is_dir(follow_symlinks=False):
            if dotted or name in _SYSTEM_FOLDERS:
                self._hidden.append(path)
                return True
        # "._a.jpg" is not an image but what macOS notes about a.jpg.
        elif dotted and name.endswith(EXTENSIONS) and not name.startswith("._"):
            self._hidden_images += 1
        return dotted or name in _SYSTEM_FILES or name in _SYSTEM_FOLDERS

    def _is_taken(self, path: str, entry: os.DirEntry[str], *, linked: bool) -> bool:
        """Takes a file; returns False if its folder can be listed but nothing in it opened."""
        try:
            self._take(path, entry.stat(), linked=linked)
        except OSError as error:
            self._closed.append(f"{shown(os.path.dirname(path))}: {error.strerror}")
            return False
        return True

    def _take(self, path: str, state: os.stat_result, *, linked: bool) -> None:
        kind = PurePosixPath(path).suffix.lower()
        if not stat.S_ISREG(state.st_mode):
            self._kinds["pipe or device"] += 1
        elif kind not in EXTENSIONS:
            self._kinds[kind] += 1
        # Some network disks number files carelessly: a file that no link leads to is believed.
        elif not self._is_new(state) and (linked or state.st_nlink > 1):
            self._again += 1
        else:
            self.images.append(path)

    def left_out(self) -> Iterator[str]:
        """Yields the phrases, the most alarming first."""
        if self._closed:
            yield _folders("folder", self._closed, " that cannot be read")
        unread = Counter({k: n for k, n in self._kinds.items() if k in UNREAD})
        for kind, count in sorted(unread.items()):
            yield f"{count:,} {kind} ({UNREAD[kind]})"
        if self.runs:
            yield _folders("folder", map(shown, self.runs), " of runs")
        if self._hidden:
            yield _folders("hidden or system folder", map(shown, sorted(self._hidden)))
        if self._hidden_images:
            yield counted(self._hidden_images, "hidden image")
        if self._broken:
            yield counted(self._broken, "broken link")
        if self._again:
            yield counted(self._again, "link", " to images already found")
        others = (self._kinds - unread).most_common()
        if others:
            yield listed(
                f"{count:,} {shown(kind) or 'without an ending'}" for kind, count in others
            )


def _folders(noun: str, names: Iterable[str], rest: str = "") -> str:
    """Says how many, and the first names: `2 folders of runs (runs/a, runs/b)`."""
    names = list(names)
    return f"{counted(len(names), noun, rest)} ({listed(names)})"
