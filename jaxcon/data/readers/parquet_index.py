"""What a parquet file of pictures holds: all bytes of it are read once, a row group at a time."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from jaxcon.data.headers import HEAD, TAIL, size_or_error
from jaxcon.data.image_files import look_at_images
from jaxcon.data.messages import cut, shown
from jaxcon.data.readers.index import IN_A_FILE, Index, make_index
from jaxcon.data.readers.parquet_columns import Columns, find_columns
from jaxcon.data.readers.tar_index import as_captions, as_label
from jaxcon.data.splits import DataError, Unreadable


class _Row(NamedTuple):
    number: int
    name: str
    told_by: tuple[Any, ...]  # what two rows of the same picture have in common
    bytes: int
    size: tuple[int, int] | Unreadable
    label: str | None
    captions: tuple[str, ...]


def index_parquet(path: str) -> Index:
    """Reads what a parquet file holds; pictures are looked at, not decoded.

    Raises:
      DataError: if it cannot be read, has no column of pictures, or a cell is of another kind.
    """
    file = open_parquet(path)
    columns = find_columns(shown(path), file.schema_arrow)
    rows = _different(path, _rows(path, file, columns))
    captions = [row.captions for row in rows]
    return make_index(
        [row.name for row in rows],
        [row.number for row in rows],
        [row.bytes for row in rows],
        labels=[row.label for row in rows],
        captions=captions if any(captions) else None,
        sizes=[row.size for row in rows],
    )


def open_parquet(path: str) -> Any:
    """Opens a file.

    Raises:
      DataError: if it is not there, or not parquet.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"cannot read the parquet file {shown(path)}: {_said(error)}") from error


def cells(file: Any, group: int, image: str) -> tuple[Any, Any]:
    """Returns the column of pictures of a row group: its bytes, and its paths; either may be None."""
    column = file.read_row_group(group, columns=[image]).column(0).combine_chunks()
    return _bytes_and_paths(column)


def _bytes_and_paths(column: Any) -> tuple[Any, Any]:
    from pyarrow import types

    if types.is_struct(column.type):
        has_path = column.type.get_field_index("path") >= 0
        found = [column.field("bytes"), column.field("path") if has_path else None]
        contents, paths = (None if c is None or types.is_null(c.type) else c for c in found)
        return contents, paths
    if types.is_binary(column.type) or types.is_large_binary(column.type):
        return column, None
    return None, column


def _different(path: str, rows: Iterable[_Row]) -> list[_Row]:
    """Returns each picture once, with the captions of all its rows, and under a name of its own."""
    pictures: dict[Any, _Row] = {}
    for row in rows:
        key = (row.name, *row.told_by) if row.name else row.number
        first = pictures.setdefault(key, row)
        if first is not row:
            pictures[key] = first._replace(captions=first.captions + row.captions)
    count = Counter(row.name for row in pictures.values())
    stem = os.path.splitext(os.path.basename(path))[0]
    return [
        row
        if row.name and count[row.name] == 1
        else row._replace(name=f"{row.name or stem}:{row.number:08}")
        for row in pictures.values()
    ]


def _rows(path: str, file: Any, columns: Columns) -> Iterator[_Row]:
    import pyarrow

    first = 0
    for group in range(file.num_row_groups):
        try:
            table = file.read_row_group(group, columns=columns.used)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(
                f"cannot read the parquet file {shown(path)}: row group {group}: {_said(error)}"
            ) from error
        contents, paths = _bytes_and_paths(table.column(columns.image).combine_chunks())
        labels = table.column(columns.label).to_pylist() if columns.label else None
        captions = table.column(columns.caption).to_pylist() if columns.caption else None
        for i in range(table.num_rows):
            row = first + i
            place = f"{path} row {row + 1}"
            name = (paths[i].as_py() if paths is not None else None) or ""
            content = contents[i].as_buffer() if contents is not None else None
            count, size = _looked_at(path, place, name, content)
            ends = () if content is None else (content[:HEAD], content[-HEAD:])
            told_by = (count, *(hash(end.to_pybytes()) for end in ends))
            label = _label(place, labels[i], columns) if labels else None
            texts = as_captions(place, captions[i]) if captions else ()
            yield _Row(row, name, told_by, count, size, label, texts)
        first += table.num_rows


def _looked_at(
    path: str, place: str, name: str, content: Any
) -> tuple[int, tuple[int, int] | Unreadable]:
    """Returns the bytes of a picture, `IN_A_FILE` for one outside, and its size or what is wrong."""
    if content is not None:
        head, tail = content[:HEAD].to_pybytes(), content[-TAIL:].to_pybytes()
        return len(content), size_or_error(head, tail, content.to_pybytes, place)
    if not name:
        return 0, Unreadable("the cell is empty", "remove the row", place)
    sizes, bad = look_at_images([os.path.join(os.path.dirname(path), name)])
    return IN_A_FILE, bad[0] if bad else (int(sizes[0, 0]), int(sizes[0, 1]))


def _label(place: str, value: Any, columns: Columns) -> str | None:
    """Returns the class of a row; None for a number below 0, as where it is a secret."""
    if isinstance(value, int) and value < 0:
        return None
    if isinstance(value, int) and columns.classes is not None:
        if value >= len(columns.classes):
            raise DataError(
                f"{shown(place)}: class {value}, but the file names {len(columns.classes)} classes"
            )
        return columns.classes[value]
    return as_label(place, value)


def _said(error: Exception) -> str:
    return cut(" ".join(str(error).split()), 200)
