"""What orbax and tensorstore leave to their users: silence, and recognizing a full disk."""

import contextlib
import errno
import logging
import re
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leaves reports of damage to us: silences orbax's logger and tensorstore's futures."""
    loggers = {name: logging.getLogger(name) for name in ("absl", "asyncio")}
    levels, hook = {name: logger.level for name, logger in loggers.items()}, sys.unraisablehook

    def tell(told: "sys.UnraisableHookArgs") -> None:
        if str(told.exc_value) != "Event loop is closed":
            hook(told)

    sys.unraisablehook = tell
    for logger in loggers.values():
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for name, logger in loggers.items():
            logger.setLevel(levels[name])


def means_full(error: BaseException | None) -> bool:
    """Returns whether a full disk or quota is among the causes; tensorstore only says so in words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if re.search(r"os_error_code='(28|122)'|No space left on device", str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def one_line(error: Exception) -> str:
    """Returns what they say, which may be pages, as the beginning of one line."""
    return re.sub(r"\s+", " ", str(error) or type(error).__name__)[:200]
