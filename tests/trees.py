"""Copies of the tree in which a test takes the steps that CONTRIBUTING says are enough."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]


def copy(to: Path, *rooms: str) -> None:
    """Copies folders of the tree, without what Python compiled."""
    for room in rooms:
        shutil.copytree(ROOT / room, to / room, ignore=shutil.ignore_patterns("__pycache__"))


def insert(path: Path, before: str, text: str) -> None:
    """Writes a text into a file, in front of what stands there once."""
    content = path.read_text()
    assert content.count(before) == 1
    path.write_text(content.replace(before, f"{text}{before}"))
