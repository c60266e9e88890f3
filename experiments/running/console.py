"""How a command starts and ends on the console, whatever happens: set up before other imports.

This uses only the standard library; the imports that follow take seconds, in which a user may also
press Ctrl-C.
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

# What a console with few characters gets instead of those that we print.
_ASCII = {"±": "+-", "–": "-", "…": "...", "✓": "x", "·": ".", "×": "x", "−": "-"}  # noqa: RUF001
_PATIENCE = 2.0  # seconds from Ctrl-C until code that does not listen is abandoned
_STOPPED = "stopped by Ctrl-C; run the same command to resume from the last checkpoint, if any"

_kept: list[socket.socket] = []
_installed, _told = threading.Event(), threading.Event()


def install() -> None:
    """Prepares this process to be a command."""
    _installed.set()
    os.environ["MPLBACKEND"] = "agg"  # figures go into files; a notebook's setting would fail here
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    codecs.register_error("readable", _readable)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="readable")  # pyright: ignore[reportAttributeAccessIssue]
    # Orbax leaves this undone if a checkpoint is damaged; we report that in a line of our own.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    sys.excepthook = _end
    sys.unraisablehook = _end_unraisable
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        _listen()


def leave(code: int) -> None:
    """Ends a command at once, skipping what libraries do at the end; elsewhere it returns."""
    if _installed.is_set():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # nobody reads it any more
                stream.flush()
        os._exit(code)


def _readable(error: UnicodeError) -> tuple[str, int]:
    r"""Replaces what the console cannot show, rather than fail.

    Example:
      >>> codecs.register_error("readable", _readable)
      >>> "83.1 ± 2.0%, \udce9.jpg".encode("ascii", "readable")
      b'83.1 +- 2.0%, \\udce9.jpg'
    """
    assert isinstance(error, UnicodeEncodeError)
    characters = error.object[error.start : error.end]
    shown = (_ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in characters)
    return "".join(shown), error.end


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Replaces Python's own hook: one line for anything that is not a bug."""
    if _is_interrupt(error):
        _tell(_STOPPED)
        # As Python would end, but at once: jax crashes when it is taken down while compiling.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    if isinstance(error, BrokenPipeError):  # as of `| head`
        _tell("error: nobody reads the output any more; run the same command to resume")
        leave(2)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        _tell(
            f"error: {error.filename or 'the output'}: {error.strerror}; run the same command to resume"
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
    """Handles exceptions that Python can pass to nobody: Ctrl-C must not be lost there."""
    if told.exc_value is not None and _is_interrupt(told.exc_value):
        _end(told.exc_type, told.exc_value, told.exc_traceback)
    elif str(told.exc_value) != "Event loop is closed":  # tensorstore's, after a failed save
        sys.__unraisablehook__(told)


def _is_interrupt(error: BaseException | None) -> bool:
    """Returns whether it is Ctrl-C or caused by it: an import cut short raises an ImportError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _blames(error: BaseException, variable: str) -> bool:
    """Returns whether jax rejects the value of a variable, while it is imported or first used."""
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
            # There is a bar on the last line if the loop is still running.
            bars = getattr(getattr(sys.modules.get("tqdm"), "tqdm", None), "_instances", ())
            sys.stderr.write(f"\n{line}\n" if len(bars) else f"{line}\n")
            sys.stderr.flush()


def _listen() -> None:
    """Lets Ctrl-C end what does not return to Python for long, such as a compilation.

    The training loop has a handler of its own while it runs, which takes the first Ctrl-C.
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
