"""Which columns of a parquet file are the picture, its class and its captions, by their usual names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxcon.data.messages import cut, listed
from jaxcon.data.splits import DataError

_FILE = ("file_name", "filename", "filepath", "file_path", "path", "file")
_IMAGE = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "image_bytes", *_FILE)
_LABEL = ("label", "class", "cls", "fine_label", "labels", "class_name", "category", "target")
_CAPTION = ("caption", "captions", "text", "sentence", "sentences", "title", "txt", "description")


class Columns(NamedTuple):
    """Names of columns.

    Attributes:
      image: the picture: its bytes, a struct of `bytes` and `path`, or the path of a file.
      label: its class, or None.
      caption: its captions, or None.
      classes: names of classes that are numbers in the file, or None.
    """

    image: str
    label: str | None
    caption: str | None
    classes: tuple[str, ...] | None

    @property
    def used(self) -> list[str]:
        """The columns to read."""
        return [name for name in (self.image, self.label, self.caption) if name]


def find_columns(place: str, schema: Any) -> Columns:
    """Finds the columns of a file.

    Example:
      >>> import pyarrow
      >>> schema = pyarrow.schema({"Img": pyarrow.binary(), "text": pyarrow.string()})
      >>> find_columns("a.parquet", schema)
      Columns(image='Img', label=None, caption='text', classes=None)

    Args:
      place: what messages call the file.
      schema: its `pyarrow.Schema`.

    Raises:
      DataError: if none can be a picture; names the columns.
    """
    kinds = {name: schema.field(name).type for name in schema.names}
    image = _first(_IMAGE, [name for name in kinds if _is_image(kinds[name])])
    structs = [name for name in kinds if _is_struct(kinds[name])]
    image = image or (structs[0] if len(structs) == 1 else None)
    if image is None:
        told = listed([f"{cut(name)} ({cut(str(kind), 40)})" for name, kind in kinds.items()], 8)
        raise DataError(
            f"{place}: no column of pictures among {told}; expected one named {_IMAGE[0]}, of bytes, "
            "of {bytes, path} or of paths"
        )
    others = {name: kind for name, kind in kinds.items() if name != image}
    label = _first(_LABEL, [name for name in others if _is_label(others[name])])
    caption = _first(_CAPTION, [name for name in others if _is_caption(others[name])])
    return Columns(image, label, caption, _class_names(schema, label))


def _first(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    plain = {name.strip().lower(): name for name in reversed(names)}
    return next((plain[name] for name in wanted if name in plain), None)


def _is_struct(kind: Any) -> bool:
    from pyarrow import types

    return types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _is_image(kind: Any) -> bool:
    from pyarrow import types

    return (
        types.is_binary(kind) or types.is_large_binary(kind) or _is_struct(kind) or _is_text(kind)
    )


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_string(kind) or types.is_large_string(kind)


def _is_label(kind: Any) -> bool:
    from pyarrow import types

    return types.is_integer(kind) or _is_text(kind)


def _is_caption(kind: Any) -> bool:
    from pyarrow import types

    several = types.is_list(kind) or types.is_large_list(kind)
    return _is_text(kind) or (several and _is_text(kind.value_type))


def _class_names(schema: Any, label: str | None) -> tuple[str, ...] | None:
    """Returns the names of classes that Hugging Face writes into a file, each different."""
    written = (schema.metadata or {}).get(b"huggingface", b"")
    try:
        names = json.loads(written)["info"]["features"][label]["names"]
    except (TypeError, ValueError, KeyError):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    count = Counter(names)  # ImageNet has two kinds of crane
    return tuple(n if count[n] == 1 else f"{n} ({i})" for i, n in enumerate(names))
