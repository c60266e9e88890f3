"""Rows of a table of captions from CSV, JSON lines or Parquet, each with its place for messages."""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxcon.data.messages import cut, is_utf_8, listed, shown
from jaxcon.data.splits import DataError

COLUMNS = ("image", "caption")
# What other programs name them: Hugging Face's file_name and text, open_clip's filepath and title.
_ALIKE = {"image": ("file_name", "filepath"), "caption": ("captions", "text", "title")}
Row = tuple[str, Mapping[Any, Any]]

_SPLITS = {"split", "splits", "set", "subset", "partition", "fold"}
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_TAB = "\t"
# Beginnings of tables that are not of the kind their name says.
_BINARY = {
    b"PK\x03\x04": "an Excel workbook or a zip file",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"PAR1": "Parquet, to be named .parquet",
}
# Other usual names of the columns.
_FILE = {"file", "file_path", "filename", "path", "url"}
_ALSO = {
    "image": {"image_file", "image_id", "image_name", "image_path", "img", "photo", *_FILE},
    "caption": {"comment", "description", "label", "prompt", "sentence"},
}


def read_rows(table: Path) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yields the place of each row, its image and its captions, none of them empty.

    Raises:
      DataError: if a row is damaged, or a text is missing or invalid, naming the first such row; or if
        either column is missing, naming the columns.
    """
    for place, row in READERS[table.suffix.lower()](table):
        image, caption = require_columns(place, list(row))
        values = row[caption] if isinstance(row[caption], list) else [row[caption]]
        texts = tuple(_text(place, value, caption) for value in values or [None])
        if odd := [text for text in texts if not is_utf_8(text)]:
            raise DataError(
                f"{place}: the {caption} has an invalid character, {cut(odd[0])}; fix it"
            )
        yield place, _text(place, row[image], image), texts


def unread_splits(table: Path) -> list[str]:
    """Returns columns that seem to give each row's split but are not read; in JSON, the first row's."""
    if table.suffix.lower() == ".parquet":
        import pyarrow.parquet

        names = pyarrow.parquet.read_schema(table).names
    else:
        names = next((list(row) for _, row in READERS[table.suffix.lower()](table)), [])
    return [name for name in names if isinstance(name, str) and name.strip().lower() in _SPLITS]


def _text(place: str, value: Any, column: str) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{place}: the {column} is empty; fill it in or remove the row")
    if not isinstance(value, str):
        raise DataError(f"{place}: the {column} must be a text, got {cut(value)}")
    return value.strip()


def require_columns(place: str, names: Sequence[Any]) -> tuple[str, str]:
    """Returns what the columns of images and captions are named.

    Example:
      >>> require_columns("a.tsv row 1", ["filepath", "title"])
      ('filepath', 'title')

    Raises:
      DataError: if one is missing, with the one that may have been meant.
    """
    names = [str(name) for name in names if name is not None]
    known = {c: next((n for n in (c, *_ALIKE[c]) if n in names), None) for c in COLUMNS}
    for column, found in known.items():
        if found is None:
            meant = _meant(column, [name for name in names if name not in known.values()])
            hint = (
                f"rename {cut(meant)!r} to {column!r}" if meant else "they are named image, caption"
            )
            raise DataError(
                f"{place}: no column {column!r} among {listed(map(cut, names), 8)}; {hint}"
            )
        if names.count(str(found)) > 1:
            raise DataError(f"{place}: two columns {found!r}; remove or rename one")
    return str(known["image"]), str(known["caption"])


def _meant(column: str, names: Sequence[str]) -> str | None:
    plain = {name.strip(" \"'").lower(): name for name in reversed(names)}
    for spelled, name in plain.items():
        if spelled == column or spelled in _ALSO[column]:
            return name
    near = difflib.get_close_matches(column, plain, n=1)
    return plain[near[0]] if near else None


def _csv(table: Path) -> Iterator[Row]:
    text = _decoded(table)
    lines = enumerate(io.StringIO(text, newline=None), start=1)
    number, line = next(((n, x.strip()) for n, x in lines if not _is_blank(x.split(","))), (1, ""))
    tabs = _TAB in line and (table.suffix.lower() == ".tsv" or "," not in line)
    if not tabs and (other := _other_separator(line)):
        raise DataError(
            f"{shown(table)} row {number}: cells seem to be separated by {other}, got {cut(line)}; "
            "save it with commas (docs/own_data.md shows how)"
        )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_TAB if tabs else ",", strict=True)
    heading: list[str] | None = None
    while True:
        place = f"{shown(table)} row {reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{place}: the quotes that begin here do not match ({error}); put the whole "
                "cell in quotes, and double any quote within it"
            ) from error
        if cells is None:
            break
        if _is_blank(cells):  # spreadsheets end with such rows
            continue
        if heading is None:
            heading = cells
            require_columns(place, heading)
        else:
            if len(cells) > len(heading):
                raise DataError(
                    f"{place}: more cells than columns; put a caption with commas in quotes"
                )
            missing = [None] * (len(heading) - len(cells))
            yield place, dict(zip(heading, [*cells, *missing], strict=True))
    if heading is None:
        require_columns(f"{shown(table)} row 1", ["nothing"])


def _is_blank(cells: Sequence[str]) -> bool:
    """Returns whether a row holds nothing, or only Excel's note that cells end at commas."""
    said = "".join(cells).strip(" \"'\r\n")
    return said in ("", "sep=", "sep=,")


def _other_separator(heading: str) -> str | None:
    """Returns what separates the columns instead of commas, as some languages' spreadsheets do."""
    found = [name for mark, name in _SEPARATORS.items() if mark in heading]
    return found[0] if found and "," not in heading else None


def _decoded(table: Path) -> str:
    data = _bytes(table)
    wanted = "UTF-8"
    if table.suffix.lower() == ".csv":
        wanted += " CSV with commas (docs/own_data.md shows how)"
    for beginning, kind in _BINARY.items():
        if data.startswith(beginning):
            raise DataError(
                f"cannot read the table {shown(table)}: it is {kind}; save it as {wanted}"
            )
    try:
        text = data.decode("utf-8-sig")
        at = data.find(b"\0")  # of every other byte of UTF-16, which may have no mark
    except UnicodeDecodeError as error:
        text, at = "", error.start
    if at < 0:
        return text
    row = data.count(b"\n", 0, at) + 1
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or data[:4].count(0) == 2:
        kind = "is not UTF-8 (UTF-16)"
    else:
        kind = f"is not UTF-8 (byte {data[at]:#x})" if data[at] else "has a NUL character"
    other = _other_separator(data.replace(b"\0", b"").partition(b"\n")[0].decode("latin-1"))
    also = f", and its cells are separated by {other}" if other else ""
    raise DataError(
        f"cannot read the table {shown(table)}: row {row} {kind}{also}; save it as {wanted}"
    )


def _jsonl(table: Path) -> Iterator[Row]:
    for number, line in enumerate(io.StringIO(_decoded(table), newline=None), start=1):
        place = f"{shown(table)} row {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{place}: not JSON ({cut(str(error))}); expected one object a line"
            ) from error
        if not isinstance(row, dict):
            raise DataError(f"{place}: expected an object with image and caption, got {cut(row)}")
        yield place, row


def _bytes(table: Path) -> bytes:
    try:
        return table.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the table {shown(table)}: {error.strerror}") from error


def _parquet(table: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(table)
        schema = file.schema_arrow
        columns = require_columns(f"{shown(table)} schema", schema.names)
        for column in columns:
            _require_text(f"{shown(table)} schema", column, schema.field(column).type)
        rows = file.read(columns=[*columns]).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"cannot read the table {shown(table)}: {cut(str(error), 200)}") from error
    for number, row in enumerate(rows, start=1):
        yield f"{shown(table)} row {number}", row


def _require_text(place: str, column: str, kind: Any) -> None:
    """Refuses a column of pictures, as in datasets from Hugging Face, before reading it."""
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    if types.is_struct(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        raise DataError(
            f"{place}: the {column} must be a text, got {cut(str(kind))}; parquet:PATH reads pictures "
            "in a table"
        )


READERS = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
KINDS = tuple(READERS)
