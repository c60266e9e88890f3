"""The examples in a tar file in webdataset's layout: members of one stem belong together.

    cat/1.jpg  cat/1.cls        a picture and its class: a number or a name
    2.jpg      2.txt            a picture and its caption
    3.jpg      3.json           both, by the keys label or cls, and caption or text

The stem is the path up to the first dot of the file's name. A tar of a plain folder of pictures is
read too: a picture with nothing beside it is an example of its own.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from jaxcon.data.encoded import EXTENSIONS
from jaxcon.data.headers import HEAD, TAIL, size_or_error
from jaxcon.data.messages import counted, cut, is_utf_8, shown
from jaxcon.data.readers.index import Index, make_index
from jaxcon.data.readers.tar_headers import Member, Window, read_headers
from jaxcon.data.splits import DataError, Unreadable

# What a member beside a picture says, by its ending; and the same in a .json, by its keys.
LABEL, CAPTION = "label", "caption"
_BESIDE = {".cls": LABEL, ".txt": CAPTION, ".caption": CAPTION}
_JSON = ".json"
_KEYS = {LABEL: ("cls", "label", "class"), CAPTION: ("caption", "captions", "text", "txt")}
Beside = dict[str, Member]


def index_tar(path: str) -> Index:
    """Reads what a tar file holds; pictures are looked at, not decoded.

    Raises:
      DataError: if it cannot be read, or what lies beside a picture is of another kind.
    """
    headers = read_headers(path)
    latest = {member.name: member for member in headers.members}  # as tar -r leaves the older ones
    pictures, beside, left_out = _sorted([*latest.values()])
    told = [counted(left_out, "picture", " beside another of the same name")] if left_out else []
    if headers.links:
        told.append(counted(headers.links, "link"))
    if not headers.ended:
        told.append(f"{shown(os.path.basename(path))} lacks the zeros that end a tar file")
    file = os.open(path, os.O_RDONLY)
    try:
        window = Window(file)
        said = [_said(path, window, beside.get(_stem(member.name), {})) for member in pictures]
        sizes = [_size(path, file, window, member) for member in pictures]
    finally:
        os.close(file)
    captions = [found.get(CAPTION, ()) for found in said]
    return make_index(
        [_plain(member.name) for member in pictures],
        [member.start for member in pictures],
        [member.size for member in pictures],
        labels=[found.get(LABEL) for found in said],
        captions=captions if any(captions) else None,
        sizes=sizes,
        told=told,
    )


def _sorted(members: list[Member]) -> tuple[list[Member], dict[str, Beside], int]:
    """Returns pictures, what lies beside them by their stems, and how many pictures are left out."""
    pictures: list[Member] = []
    beside: dict[str, Beside] = {}
    for member in members:
        name = member.name.rpartition("/")[2]
        ending = os.path.splitext(name)[1].lower()
        if name.startswith(".") or "__MACOSX" in member.name:
            continue
        if ending in EXTENSIONS:
            pictures.append(member)
        elif ending in _BESIDE or ending == _JSON:
            # Of 1.left.cls and 1.right.cls, neither is known to be the class of 1.jpg.
            beside.setdefault(_stem(member.name), {}).setdefault(ending, member)
    taken: Counter[str] = Counter()
    kept = []
    for member in pictures:
        stem = _stem(member.name)
        taken[stem] += stem in beside
        if taken[stem] < 2:
            kept.append(member)
    return kept, beside, len(pictures) - len(kept)


def _plain(name: str) -> str:
    """Returns a member's name as that of a file in a folder: `./cat/1.jpg` is `cat/1.jpg`."""
    return os.path.normpath(name).lstrip("/") if name[:1] in (".", "/") or "//" in name else name


def _stem(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def _said(path: str, window: Window, beside: Beside) -> dict[str, Any]:
    """Returns the label (a text) and the captions (a tuple) that lie beside a picture."""
    found: dict[str, Any] = {}
    for ending, member in beside.items():
        content = window.read(member.start, member.size)
        place = f"{path}: {member.name}"
        if ending == _JSON:
            found = {**_of_json(place, content), **found}
        else:
            text = _decoded(place, content)
            found[_BESIDE[ending]] = text if _BESIDE[ending] == LABEL else (text,)
    return {what: value for what, value in found.items() if value}


def _decoded(place: str, content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{shown(place)}: is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from error
    if "\0" in text:
        raise DataError(f"{shown(place)}: has a NUL character; save it as UTF-8")
    return text


def _of_json(place: str, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{shown(place)}: not JSON ({cut(str(error))}); expected one object"
        ) from error
    if not isinstance(value, dict):
        raise DataError(
            f"{shown(place)}: expected an object with label or caption, got {cut(value)}"
        )
    return {
        LABEL: as_label(place, _first(value, LABEL)),
        CAPTION: as_captions(place, _first(value, CAPTION)),
    }


def _first(value: Mapping[str, Any], what: str) -> Any:
    return next((value[key] for key in _KEYS[what] if value.get(key) is not None), None)


def as_label(place: str, value: Any) -> str | None:
    """Returns a class, a number or a name, as a text; None for none.

    Example:
      >>> as_label("1.json", 3), as_label("1.json", " cat "), as_label("1.json", None)
      ('3', 'cat', None)

    Raises:
      DataError: for a value of another kind.
    """
    if value is None or isinstance(value, str):
        return (value or "").strip() or None
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{shown(place)}: the class must be a number or a name, got {cut(value)}")
    return str(value)


def as_captions(place: str, value: Any) -> tuple[str, ...]:
    """Returns the captions that a value holds, a text or a list of texts; those of blanks left out.

    Example:
      >>> as_captions("1.json", ["a cat", ""]), as_captions("1.json", None)
      (('a cat',), ())

    Raises:
      DataError: for a value of another kind.
    """
    values = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(v, str) for v in values):
        raise DataError(
            f"{shown(place)}: the caption must be a text or a list of texts, got {cut(value)}"
        )
    if odd := [text for text in values if not is_utf_8(text)]:
        raise DataError(
            f"{shown(place)}: the caption has an invalid character, {cut(odd[0])}; fix it"
        )
    return tuple(text.strip() for text in values if text.strip())


def _size(path: str, file: int, window: Window, member: Member) -> tuple[int, int] | Unreadable:
    head = window.read(member.start, min(HEAD, member.size))
    tail = os.pread(file, min(TAIL, member.size), member.start + max(0, member.size - TAIL))
    whole: Callable[[], bytes] = lambda: os.pread(file, member.size, member.start)  # noqa: E731
    return size_or_error(head, tail, whole, f"{path}:{member.name}")
