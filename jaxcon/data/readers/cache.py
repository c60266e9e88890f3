"""Where data are prepared, copied and indexed, unless told otherwise."""

from __future__ import annotations

import os
from pathlib import Path

from jaxcon.data.splits import DataError


def default_data_dir() -> Path:
    """Returns `$XDG_CACHE_HOME/jaxcon`, or `~/.cache/jaxcon`.

    Raises:
      DataError: if the account has no home folder, as in many containers.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxcon"
    except RuntimeError:
        raise DataError(
            "there is no home folder to prepare datasets in; set HOME or XDG_CACHE_HOME, or name a "
            "folder (--data-dir)"
        ) from None
