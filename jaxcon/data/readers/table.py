"""A user's own captions: a table of images and captions as CSV, TSV, JSON lines or Parquet.

    image,caption                     birds/captions.csv: image paths start at the table's folder
    1.jpg,a robin in the snow
    1.jpg,a small bird on a branch    an image may have several captions
    far/2.jpg,two swans

Columns may also be named `file_name` and `text`, as in Hugging Face's `metadata.jsonl` or `.csv`, of
which every folder of a split may have one; or `filepath` and `title`, separated by tabs, as in the
tables of open_clip. In JSON lines and Parquet, a cell may hold a list of captions.

All rows are checked before the first image is read; errors name the row. In a CSV file that is the
line where the row begins.
"""

from __future__ import annotations

from pathlib import Path

from jaxcon.data.messages import listed, shown
from jaxcon.data.readers.table_images import TableImages
from jaxcon.data.readers.table_rows import COLUMNS, KINDS, read_rows
from jaxcon.data.splits import DataError

__all__ = ["COLUMNS", "KINDS", "find_table", "find_tables", "read_table"]

_METADATA = "metadata"
# Other kinds of tables, and how to convert them.
_ALMOST = {
    ".txt": "save it as .csv, with commas between cells",
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers"), "save it as CSV UTF-8"),
    ".json": "write one object a line, as .jsonl",
}


def find_tables(path: Path) -> list[Path]:
    """Returns the table that `find_table` returns, or one in each folder below.

    Raises:
      DataError: if there is none, or more than one in a folder.
    """
    if path.is_dir() and not any(file.suffix.lower() in KINDS for file in path.iterdir()):
        below = sorted(path.glob(f"*/{_METADATA}.*"))
        tables = [file for file in below if file.suffix.lower() in KINDS]
        if tables and len({file.parent for file in tables}) == len(tables):
            return tables
    return [find_table(path)]


def find_table(path: Path) -> Path:
    """Returns `path` if it is a table, else the only table in that folder.

    Raises:
      DataError: if there is none, or more than one.
    """
    if path.is_file():
        if path.suffix.lower() not in KINDS:
            mend = _ALMOST.get(path.suffix.lower())
            hint = f"; {mend}" if mend else ""
            raise DataError(
                f"{shown(path)} is not a table of captions: expected {', '.join(KINDS)}{hint}"
            )
        return path
    if not path.is_dir():
        raise DataError(
            f"there is no folder {shown(path)}; folder: takes a folder with images and a table"
        )
    files = sorted(file for file in path.iterdir() if file.is_file() and not _is_system(file))
    found = [file for file in files if file.suffix.lower() in KINDS]
    if not found:
        raise DataError(
            f"there are no captions in {shown(path)}: put a table captions.csv, .jsonl or .parquet "
            f"there, with the columns image and caption{_hint(path, files)}"
        )
    if len(found) > 1:
        raise DataError(
            f"{shown(path)} has {len(found)} tables ({listed(shown(file.name) for file in found)}); "
            f"name one of them: folder:{shown(found[0])}"
        )
    return found[0]


def _is_system(file: Path) -> bool:
    """Returns whether a file is hidden, or one that macOS ("._captions.csv") or Office leaves there."""
    return file.name.startswith((".", "~$"))


def _hint(path: Path, files: list[Path]) -> str:
    """Proposes a table that may be meant: of another kind, or in a folder below."""
    almost = [file for file in files if file.suffix.lower() in _ALMOST]
    if almost:
        return f"; for {shown(almost[0].name)}: {_ALMOST[almost[0].suffix.lower()]}"
    for file in sorted(path.glob("*/*")):
        if file.suffix.lower() in KINDS and not _is_system(file):
            return f"; or use {shown(file)}: folder:{shown(file.parent)}"
    return ""


def read_table(table: Path, *more: Path, root: Path | None = None) -> dict[str, list[str]]:
    """Returns the captions by image path, both in the order of the table.

    Each file has one path, relative to `root`, however its rows spell it.

    Args:
      table: from `find_table`; image paths in it are relative to its folder.
      *more: further tables, likewise.
      root: the folder that paths start at; None: that of the table.

    Raises:
      DataError: if a row names no image, a missing image or an empty caption, naming the first such
        row; or if either column is missing, naming the columns.
    """
    images = TableImages(root or table.parent)
    rows = []
    for one in (table, *more):
        before = len(rows)
        for place, image, texts in read_rows(one):
            rows.append((images.find(place, image, texts[0], one.parent), texts))
        if len(rows) == before:
            raise DataError(f"{shown(one)} has no rows")
    captions: dict[str, list[str]] = {}
    for file, texts in rows:
        captions.setdefault(images.path(file), []).extend(texts)
    return captions
