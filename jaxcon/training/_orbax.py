"""What orbax and tensorstore leave to whoever uses them: silence, and a word for a full disk."""

import contextlib
import errno
import logging
import re
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leaves it to us to tell of damage: not to orbax's logger, nor to tensorstore's futures."""
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
    """Whether a full disk or quota is among the causes; tensorstore tells it in words alone."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if re.search(r"os_error_code='(28|122)'|No space left on device", str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
