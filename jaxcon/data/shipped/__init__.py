"""The datasets we ship, which are made here without a download: digits and scenes."""

import importlib
from typing import Any

# The builder of each, in the file of its name here.
SHIPPED = {
    "digits": "JaxconDigits",
    "scenes": "JaxconScenes",
}


def shipped(name: str) -> Any:
    """Return the builder of a dataset we ship, imported when it is asked for: it needs TFDS.

    >>> print(shipped("digits").VERSION)
    1.0.0

    Args:
      name: one of `SHIPPED`.
    """
    return getattr(importlib.import_module(f"{__name__}.{name}"), SHIPPED[name])
