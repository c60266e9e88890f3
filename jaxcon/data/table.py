"""A user's own captions: a table of images and captions as CSV, JSON lines or Parquet.

    image,caption                     birds/captions.csv: image paths start at the table's folder
    1.jpg,a robin in the snow
    1.jpg,a small bird on a branch    an image may have several captions
    far/2.jpg,two swans

All rows are checked before the first image is read; what is wrong is said with its row.
"""

from __future__ import annotations

import csv
import difflib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxcon.data.splits import DataError

COLUMNS = ("image", "caption")
_KINDS = (".csv", ".jsonl", ".parquet")


def find_table(path: Path) -> Path:
    """The table that `path` is, or the only one in the folder that it is.

    Raises:
      DataError: if there is none, or more than one.
    """
    if path.is_file():
        if path.suffix.lower() not in _KINDS:
            raise DataError(f"{path} is not a table of captions: expected {', '.join(_KINDS)}")
        return path
    if not path.is_dir():
        raise DataError(
            f"there is no folder {path}; folder: takes a folder with images and a table"
        )
    found = sorted(
        file for file in path.iterdir() if file.suffix.lower() in _KINDS and file.is_file()
    )
    if not found:
        raise DataError(
            f"there are no captions in {path}: put a table captions.csv, .jsonl or .parquet there, "
            "with the columns image and caption"
        )
    if len(found) > 1:
        raise DataError(
            f"{path} has {len(found)} tables ({', '.join(file.name for file in found)}); "
            f"name one of them: folder:{found[0]}"
        )
    return found[0]


def read_table(table: Path) -> dict[str, list[str]]:
    """Captions by image path, both in the order of the table.

    Args:
      table: of `find_table`; image paths in it are relative to its folder.

    Raises:
      DataError: naming the first row without an image, whose image is missing, or with an empty
        caption; or the columns, where the two are not among them.
    """
    read = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[table.suffix.lower()]
    captions: dict[str, list[str]] = {}
    for place, row in read(table):
        image, caption = (_text(place, row, column) for column in COLUMNS)
        image = os.path.normpath(image)  # ./a.png is a.png: all captions of an image in one split
        if image not in captions and not (table.parent / image).is_file():
            raise DataError(
                f"{place}: there is no image {table.parent / image}; paths start at the table's "
                "folder"
            )
        captions.setdefault(image, []).append(caption)
    if not captions:
        raise DataError(f"{table} has no rows")
    return captions


def _text(place: str, row: Mapping[Any, Any], column: str) -> str:
    _require_columns(place, row)
    value = row[column]
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{place}: the {column} is empty; fill it in or remove the row")
    if not isinstance(value, str):
        raise DataError(f"{place}: the {column} must be a text, got {value!r}")
    return value.strip()


def _require_columns(place: str, columns: Any) -> None:
    names = [str(name) for name in columns if name is not None]
    for column in COLUMNS:
        if column not in names:
            near = difflib.get_close_matches(column, names, n=1)
            hint = f"; rename {near[0]!r}" if near else ""
            raise DataError(f"{place}: no column {column!r} among {', '.join(names)}{hint}")


def _csv(table: Path) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            _require_columns(f"{table} row 1", reader.fieldnames or ["nothing"])
            for row in reader:
                place = f"{table} row {reader.line_num}"
                if None in row:
                    raise DataError(
                        f"{place}: more cells than columns; put a caption with commas in quotes"
                    )
                yield place, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the table {table}: {error}; save it as UTF-8 CSV") from error


def _jsonl(table: Path) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    for number, line in enumerate(table.read_bytes().splitlines(), start=1):
        place = f"{table} row {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{place}: not JSON ({error}); expected one object a line") from error
        if not isinstance(row, dict):
            raise DataError(f"{place}: expected an object with image and caption, got {row!r}")
        yield place, row


def _parquet(table: Path) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(table)
        _require_columns(f"{table} schema", file.schema_arrow.names)
        rows = file.read(columns=list(COLUMNS)).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"cannot read the table {table}: {' '.join(str(error).split())}") from error
    for number, row in enumerate(rows, start=1):
        yield f"{table} row {number}", row
