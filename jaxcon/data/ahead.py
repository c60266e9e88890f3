"""Items made ahead of being asked for, by a thread: input that is on the devices before the step.

>>> ahead = Ahead(lambda: iter(range(3)))
>>> list(ahead)
[0, 1, 2]
"""

from __future__ import annotations

import contextlib
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import jax

Item = TypeVar("Item")

_LOOK = 0.1  # seconds between looks whether to stop
_PATIENCE = 30.0  # seconds until a thread that does not stop is left alone


class Ahead(Generic[Item]):
    """An iterator whose items a thread makes: one waits to be taken, and the next is in the making.

    The thread stops when the iterator is closed, lost, or at its end.

    Args:
      make: returns the iterator of the items, and is called in the thread; what it raises is raised
        by `next`. If the iterator has a `close`, that is called at the end.
    """

    def __init__(self, make: Callable[[], Iterator[Item]]) -> None:
        self._made: queue.Queue[tuple[bool, Any]] = queue.Queue(maxsize=1)
        self._done = False
        stop = threading.Event()
        # What `with jax.default_device(...)` says is known to its own thread only.
        where: Any = getattr(jax.config, "jax_default_device", None)
        self._thread = threading.Thread(
            target=_run, args=(make, self._made, stop, where), name="ahead", daemon=True
        )
        self._finalize = weakref.finalize(self, _stop, stop, self._thread)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        if self._done:
            raise StopIteration
        more, item = self._made.get()
        if more:
            return item
        self.close()
        raise item

    def ready(self) -> bool:
        """Returns whether `next` would not have to wait."""
        return self._done or not self._made.empty()

    def close(self) -> None:
        """Stops the thread; there are no further items."""
        self._done = True
        self._finalize()


def _run(
    make: Callable[[], Iterator[Any]],
    made: queue.Queue[tuple[bool, Any]],
    stop: threading.Event,
    where: Any,
) -> None:
    """Puts (True, item) for each item and, at the end, (False, what `next` raises)."""

    def put(entry: tuple[bool, Any]) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                made.put(entry, timeout=_LOOK)
                return

    try:
        with jax.default_device(where):
            items = make()
            try:
                while not stop.is_set():
                    put((True, next(items)))
            finally:
                getattr(items, "close", lambda: None)()
    except BaseException as error:  # for the thread that asks
        put((False, error))


def _stop(stop: threading.Event, thread: threading.Thread) -> None:
    stop.set()
    if thread is not threading.current_thread():  # the garbage collector runs in any
        thread.join(_PATIENCE)
