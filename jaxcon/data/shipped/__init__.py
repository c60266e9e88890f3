"""The datasets that ship with jaxcon, made locally without a download: digits and scenes."""

import importlib
from typing import Any

# The builder of each, in the file of its name in this folder.
SHIPPED = {
    "digits": "JaxconDigits",
    "scenes": "JaxconScenes",
}
# The shape of their images, and the number of those to learn from, for those who read none of them.
CONTENTS = {
    "digits": ((8, 8, 1), 1_259),
    "scenes": ((48, 48, 3), 10_000),
}


def shipped(name: str) -> Any:
    """Returns the builder of a shipped dataset; it is only imported here, as it needs TFDS.

    Example:
      >>> print(shipped("digits").VERSION)
      1.0.0

    Args:
      name: one of `SHIPPED`.
    """
    return getattr(importlib.import_module(f"{__name__}.{name}"), SHIPPED[name])
