"""Which paths mean a folder in an object store."""

import os
import re
from pathlib import PurePath

# A name with one of these would be a pattern, a version or a query somewhere on its way.
_ODD = r"[*?\[\]#\\\s]"


def address(path: str | os.PathLike[str]) -> str | None:
    """Returns the address of a folder in an object store; None for a path of this machine.

    pathlib makes one slash of two; this puts it back.

    Example:
      >>> address("gs://bucket/run/"), address(PurePath("s3://bucket/run")), address("runs/a")
      ('gs://bucket/run', 's3://bucket/run', None)
      >>> address("az://bucket/run")
      Traceback (most recent call last):
      ValueError: az://bucket/run: expected a path of this machine, gs://BUCKET/FOLDER or s3://...

    Raises:
      ValueError: for addresses of other kinds, and for those without a bucket or a folder.
    """
    text = os.fspath(path)
    found = re.fullmatch(r"(gs|s3):/+(.*)", text, re.DOTALL)
    if found is None:
        if "://" in text:
            raise ValueError(
                f"{text}: expected a path of this machine, gs://BUCKET/FOLDER or s3://BUCKET/FOLDER"
            )
        return None
    parts = found[2].rstrip("/").split("/")
    if len(parts) < 2 or any(part in ("", ".", "..") for part in parts):
        raise ValueError(
            f"{text}: expected a bucket and a folder in it, {found[1]}://BUCKET/FOLDER"
        )
    if odd := re.search(_ODD, found[2]):
        raise ValueError(f"{text}: has {odd[0]!r}; name a folder without it")
    return f"{found[1]}://{'/'.join(parts)}"


def shown(path: PurePath) -> str:
    """Returns a path as text: that of an object store as it was typed.

    Example:
      >>> shown(PurePath("gs://bucket/run")), shown(PurePath("runs/a"))
      ('gs://bucket/run', 'runs/a')
    """
    return address(path) or str(path)
