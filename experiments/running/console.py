"""How a command starts and ends on the console, whatever happens: set before anything is imported.

Only the standard library is used here; the imports that follow take seconds, in which a user may
press Ctrl-C as well.
"""

import codecs
import contextlib
import errno
import os
import signal
import socket
import sys
import threading
import time
import warnings
from types import TracebackType

# What a console of few characters is given in place of those that we print.
_ASCII = {"±": "+-", "–": "-", "…": "...", "✓": "x", "·": ".", "×": "x", "−": "-"}  # noqa: RUF001
_PATIENCE = 2.0  # seconds from Ctrl-C until code that does not listen is left
_STOPPED = "stopped by Ctrl-C; the same command goes on, from the last checkpoint if there is one"

_kept: list[socket.socket] = []
_installed, _told = threading.Event(), threading.Event()


def install() -> None:
    """Prepares this process for being a command."""
    _installed.set()
    os.environ["MPLBACKEND"] = "agg"  # figures go into files; a notebook's setting would fail here
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    codecs.register_error("readable", _readable)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="readable")  # pyright: ignore[reportAttributeAccessIssue]
    # What Orbax leaves undone where a checkpoint is damaged; that is told in a line of our own.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    sys.excepthook = _end
    sys.unraisablehook = _end_unraisable
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        _listen()


def leave(code: int) -> None:
    """Ends a command at once, without what libraries do at the end; elsewhere it returns."""
    if _installed.is_set():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # nobody reads it any more
                stream.flush()
        os._exit(code)


def _readable(error: UnicodeError) -> tuple[str, int]:
    r"""Replaces what the console cannot show, rather than fail.

    >>> codecs.register_error("readable", _readable)
    >>> "83.1 ± 2.0%, \udce9.jpg".encode("ascii", "readable")
    b'83.1 +- 2.0%, \\udce9.jpg'
    """
    assert isinstance(error, UnicodeEncodeError)
    characters = error.object[error.start : error.end]
    shown = (_ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in characters)
    return "".join(shown), error.end


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """In place of Python's own: one line for what is no bug."""
    if _is_interrupt(error):
        _tell(_STOPPED)
        # As Python would end; but at once, for jax crashes when it is taken down while it compiles.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    if isinstance(error, BrokenPipeError):  # as of `| head`
        _tell("error: nobody reads the output any more; the same command goes on")
        leave(2)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        _tell(
            f"error: {error.filename or 'the output'}: {error.strerror}; the same command goes on"
        )
        leave(2)
    if isinstance(error, ModuleNotFoundError) and error.name:
        name = error.name.split(".")[0]
        if name not in ("jaxcon", "experiments"):
            _tell(
                f"error: {name} is not installed for {sys.executable}; `make simclr` sets up "
                ".venv/bin/python, or: pip install -e '.[experiments]'"
            )
            leave(2)
    variable = next((v for v in os.environ if v.startswith("JAX_") and _blames(error, v)), None)
    if variable is not None:
        _tell(f"error: {variable}={os.environ[variable]} is set: {' '.join(str(error).split())}")
        os._exit(2)
    sys.__excepthook__(kind, error, trace)
    if "jaxcon.training.ranks" in sys.modules:
        reason = f"{kind.__name__}: {' '.join(str(error).split())[:200]}"
        sys.modules["jaxcon.training.ranks"].end_with_others(reason, 1)


def _end_unraisable(told: "sys.UnraisableHookArgs") -> None:
    """An exception that Python can hand to nobody: Ctrl-C must not be lost there."""
    if told.exc_value is not None and _is_interrupt(told.exc_value):
        _end(told.exc_type, told.exc_value, told.exc_traceback)
    elif str(told.exc_value) != "Event loop is closed":  # tensorstore's, where a save has failed
        sys.__unraisablehook__(told)


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether it is Ctrl-C, or came of it: an import that it broke off raises an ImportError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _blames(error: BaseException, variable: str) -> bool:
    """Whether jax refuses the value of a variable, while it is imported or first used."""
    text = str(error)
    if variable == "JAX_PLATFORMS" and text.startswith("Unable to initialize backend"):
        return True
    if not isinstance(error, ValueError):
        return False
    return f"'{variable}'" in text or text.endswith(f"JAX flag {variable.lower()}")


def _tell(line: str) -> None:
    if not _told.is_set():
        _told.set()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        with contextlib.suppress(OSError):
            # A bar stands in the last line where the loop has not been left yet.
            bars = getattr(getattr(sys.modules.get("tqdm"), "tqdm", None), "_instances", ())
            sys.stderr.write(f"\n{line}\n" if len(bars) else f"{line}\n")
            sys.stderr.flush()


def _listen() -> None:
    """Lets Ctrl-C end what does not return to Python for long: a compilation, say.

    The training loop has a handler of its own while it runs, and is left to that; once.
    """
    here, there = socket.socketpair()
    there.setblocking(False)
    signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)

    def wait() -> None:
        handled = 0
        while number := here.recv(1):
            if number[0] != signal.SIGINT:
                continue
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler or handled:
                time.sleep(_PATIENCE)
                _tell(_STOPPED)
                os._exit(130)
            handled += 1

    threading.Thread(target=wait, daemon=True).start()
    _kept.append(there)  # not to be closed
