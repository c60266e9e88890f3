"""One process at a time in a folder of an object store, which knows no locks.

Who trains there writes an object, and writes it again every few seconds. Whoever finds one waits: if
it changes, its owner is alive; if it stays as it is, its owner was killed. No clocks are compared. An
owner that was stopped for so long that another took over notices before it writes anything else.
"""

import atexit
import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from jaxcon.stores.store import Store, StoreError

NAME = ".lease.json"
BEAT = 15.0  # seconds between signs of life
PATIENCE = 50.0  # seconds without one after which another process may take over

_held: dict[str, "Lease"] = {}  # of this process, by address


class Lease:
    """The right to write a folder, held until `release`, or until a while after this process ends.

    Args:
      store: the folder.
      say: told a line if it has to wait.
      beat: seconds between signs of life.
      patience: seconds of silence after which an owner counts as gone.

    Raises:
      StoreError: if another process is alive there.
    """

    def __init__(
        self,
        store: Store,
        *,
        say: Callable[[str], None] = print,
        beat: float = BEAT,
        patience: float = PATIENCE,
    ):
        self._store, self._beat, self._patience = store, beat, patience
        self._mine = {**_owner(), "token": uuid.uuid4().hex}
        self._lost, self._ended, self._writing = False, threading.Event(), threading.Lock()
        if (held := _held.pop(store.url, None)) is not None:  # by an earlier run in this process
            held.release()
        found = store.read(NAME)
        if found is not None and not _is_gone(found):
            self._wait_for(found, say)
            found = store.read(NAME)
        if found is not None:
            store.write(NAME, self._words(0))
        elif not store.create(NAME, self._words(0)):
            raise self._refusal(store.read(NAME) or b"{}")
        _held[store.url] = self
        atexit.register(self.release)
        threading.Thread(target=self._stay, daemon=True).start()

    def check(self) -> None:
        """Raises a StoreError if another process has taken over."""
        if self._lost or _token(self._store.read(NAME)) != self._mine["token"]:
            self._lost = True
            raise StoreError(
                f"{self._store.url}: another process has taken over, because this one was silent for "
                f"{self._patience:.0f} s or more, or somebody removed {NAME}; nothing more was written"
            )

    def release(self) -> None:
        """Lets others write there."""
        atexit.unregister(self.release)
        _held.pop(self._store.url, None)
        with self._writing, contextlib.suppress(StoreError):  # it is another's, or runs out
            if not self._ended.is_set():
                self._ended.set()
                self.check()
                self._store.remove([NAME])

    def _wait_for(self, found: bytes, say: Callable[[str], None]) -> None:
        owner = json.loads(found) if found.startswith(b"{") else {}
        say(
            f"{self._store.url}: was in use by process {owner.get('pid')} on {owner.get('host')}; if "
            f"that one was killed, this one begins in {self._patience:.0f} s"
        )
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline:
            time.sleep(min(1.0, self._patience / 20))
            now = self._store.read(NAME)
            if now is None:
                return
            if now != found:
                raise self._refusal(now)

    def _refusal(self, found: bytes) -> StoreError:
        owner = json.loads(found)
        return StoreError(
            f"{self._store.url}: process {owner.get('pid')} on {owner.get('host')} is training in this "
            "folder; wait for it to end, or choose another --workdir"
        )

    def _words(self, number: int) -> bytes:
        return json.dumps({**self._mine, "beat": number}).encode()

    def _stay(self) -> None:
        number = 0
        while not self._ended.wait(self._beat):
            number += 1
            with self._writing, contextlib.suppress(StoreError):  # the network may come back
                if self._ended.is_set():
                    return
                self.check()
                self._store.write(NAME, self._words(number))
            if self._lost:
                return


def _owner() -> dict[str, object]:
    """Returns where this process is: the kernel that runs, and whose process numbers are meant."""
    kernel = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        kernel = f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return {"host": socket.gethostname(), "pid": os.getpid(), "kernel": kernel}


def _is_gone(found: bytes) -> bool:
    """Returns whether the owner was a process of this machine that does not exist any more."""
    try:
        owner, here = json.loads(found), _owner()
        if not here["kernel"] or any(owner[name] != here[name] for name in ("host", "kernel")):
            return False
        if owner["pid"] == here["pid"]:
            return True  # this process itself, or its number is taken again
        os.kill(int(owner["pid"]), 0)
    except (ProcessLookupError, ValueError, TypeError, KeyError):
        return True  # a damaged object is nobody's
    except OSError:
        return False  # it is another user's
    return False


def _token(found: bytes | None) -> object:
    try:
        return json.loads(found or b"{}").get("token")
    except (ValueError, AttributeError):
        return None
