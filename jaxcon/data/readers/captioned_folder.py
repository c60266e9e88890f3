"""A user's own images with a table of captions: `folder:PATH`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from jaxcon.data.image_files import look_at_images
from jaxcon.data.messages import cut, listed, shown
from jaxcon.data.readers.examples import Examples
from jaxcon.data.readers.layout import read_splits
from jaxcon.data.readers.paths import user_path
from jaxcon.data.readers.table import find_tables, read_table
from jaxcon.data.readers.table_rows import unread_splits
from jaxcon.data.splits import DataError
from jaxcon.data.stored import StoredFiles
from jaxcon.data.texts import Grouped

_WANTED = "a folder with images and a table of captions"
_FEWEST = 10  # images that leave at least one for validation and two for the test


def find_captioned(path: str) -> Examples:
    """Finds the images that a table names, with their captions.

    Args:
      path: what follows `folder:`: the table, or the folder that it is in.

    Raises:
      DataError: if there is no table, or something is wrong in it; names the row.
    """
    found = user_path(path, _WANTED)
    table, *more = find_tables(found)
    root = found if more or found.is_dir() else table.parent
    captions = read_table(table, *more, root=root)
    paths = sorted(captions)
    if len(paths) < _FEWEST:
        raise DataError(
            f"{shown(table)} names {len(paths)} images; expected at least {_FEWEST}, to be split "
            "into train, validation and test"
        )
    require_different(table, captions.values())
    layout = read_splits(str(root), paths)
    unread = [f"its column {cut(name)} is not read" for name in unread_splits(table)]
    files = [str(root / path) for path in paths]
    sizes, bad = look_at_images(files)
    tables = listed(shown(os.path.relpath(file, root)) for file in (table, *more))
    layout.notes.insert(0, f"table{'s' if more else ''} {tables}")
    return Examples(
        place=str(table),
        stored=StoredFiles(files),
        sizes=sizes,
        layout=layout._replace(notes=[*layout.notes, *unread]),
        bad=bad,
        captions=Grouped.of(captions[path] for path in paths),
    )


def require_different(place: str | os.PathLike[str], captions: Iterable[Sequence[str]]) -> None:
    """Raises a DataError if all images have the same caption: nothing can be learned from it.

    Args:
      place: where they are from, for messages.
      captions: those of each image.
    """
    number, first = 0, None
    for number, texts in enumerate(captions, start=1):
        first = first if number > 1 else (texts[0] if texts else None)
        if any(text != first for text in texts):
            return
    if number:
        raise DataError(
            f"{shown(place)}: all {number:,} images have the caption {cut(first or '')}; "
            "expected captions that tell images apart"
        )
