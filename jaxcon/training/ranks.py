"""Several processes in one run: how they meet, and how all end if one of them is gone.

JAX would end the others too, by aborting them: their last lines are C++ stack frames, which do not say
which process it was. Here every process counts up, once a second, in the key-value store of JAX's
coordinator, which is process 0; process 0 listens to all others, and they listen to it. A process that
is silent for `PATIENCE` seconds was killed, stopped or cut off, and the others end with one line that
names it.

JAX's client aborts its process the moment its connection to process 0 breaks, before anything can be
said. So the other processes do not hold that connection themselves: a `Tunnel` does.
"""

import atexit
import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import jax

from jaxcon.training import _coordinator

PATIENCE = 8.0  # seconds; with what follows, all are gone after 12
_BEAT = 1.0
_ARRIVAL = 300.0  # seconds in which all processes have to arrive
_PULSE = "jaxcon/pulse"
_GONE = "gone: "

_watch: "Watch | None" = None


def join(cluster: Mapping[str, Any]) -> None:
    """Makes this process one of a job, and watches over the others from then on.

    Args:
      cluster: from `devices.cluster_arguments`; empty if jax recognizes the job by itself.

    Raises:
      ValueError: if the numbers of the job do not fit together.
    """
    global _watch
    address, count, process = _place(cluster)
    if not 0 <= process < count:
        raise ValueError(
            f"JAX_PROCESS_ID={process}: expected a number from 0 to {count - 1}, for "
            f"JAX_NUM_PROCESSES={count}"
        )
    watch = Watch(process, count, store=_coordinator.values, end=_end)
    tunnel = None if process == 0 else Tunnel(address, watch.coordinator_hung_up)
    with _time_limit(address, count, process):
        # JAX's own limits are longer than ours, because they end in an abort.
        jax.distributed.initialize(
            address if tunnel is None else tunnel.address,
            count,
            process,
            initialization_timeout=2 * int(_ARRIVAL),
            shutdown_timeout_seconds=7 * 24 * 3600,  # others wait while process 0 evaluates
        )
    watch.start()
    _watch = watch
    atexit.register(leave)


def leave() -> None:
    """Waits until the others are done too, then lets go of them: called when a process ends."""
    if _watch is not None and not _watch.left.is_set():
        jax.distributed.shutdown()
        _watch.left.set()


def end_if_another_is_gone() -> None:
    """Waits, after an error, long enough to notice if another's end was its cause.

    If so, this process ends with a line that says so. In a single process it returns at once.
    """
    if _watch is not None:
        time.sleep(PATIENCE + 4 * _BEAT)


def end_with_others(reason: str, code: int) -> None:
    """Ends this process at once, and makes the others say why. In a single process it returns.

    Args:
      reason: one line.
      code: exit code.
    """
    if _watch is not None:
        _watch.tell(reason)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Watch:
    """Two threads: one speaks and listens, which may hang; the other watches the clock.

    Args:
      process: number of this process.
      count: number of all processes.
      store: returns the key-value store that all share; it exists once they have met.
      end: ends the process, with a line and an exit code.
      beat: seconds between two signs of life.
      patience: seconds of silence after which another process counts as gone.
    """

    def __init__(
        self,
        process: int,
        count: int,
        *,
        store: Callable[[], Any],
        end: Callable[[str, int], NoReturn],
        beat: float = _BEAT,
        patience: float = PATIENCE,
    ):
        self._process, self._count = process, count
        self._store, self._end, self._beat, self._patience = store, end, beat, patience
        self._values: dict[int, str] = {}
        self._heard: dict[int, float] = {}
        self._joined, self.left = threading.Event(), threading.Event()
        self._speaking, self._said_last = threading.Lock(), False

    def start(self) -> None:
        others = range(1, self._count) if self._process == 0 else [0]
        self._heard = dict.fromkeys(others, time.monotonic())
        self._joined.set()
        for target in (self._speak, self._look):
            threading.Thread(target=target, daemon=True).start()

    def coordinator_hung_up(self) -> bool:
        """Returns whether to hide it from JAX's client; ends the process if the coordinator is gone."""
        if not self._joined.is_set():
            return False  # it is not there yet: the client tries again
        if not self.left.wait(2 * self._beat):  # nor is it the orderly end of the run
            self._end_without(0, "its connection broke")
        return True

    def tell(self, reason: str) -> None:
        """Sends a reason instead of a number, for the last time: the others read it, and end."""
        with contextlib.suppress(Exception):
            self._say(_GONE + reason, last=True)
            if self._process == 0:  # the store ends with it
                time.sleep(3 * self._beat)

    def _say(self, value: str, *, last: bool = False) -> None:
        with self._speaking:
            if last or not self._said_last:
                self._store().key_value_set(
                    f"{_PULSE}/{self._process}", value, allow_overwrite=True
                )
            self._said_last |= last

    def _speak(self) -> None:
        number = 0
        while not self.left.wait(self._beat):
            number += 1
            # If anything goes wrong here, nothing is heard, and the other thread will say so.
            with contextlib.suppress(Exception):
                self._say(str(number))
                if self._process == 0:
                    told = dict(self._store().key_value_dir_get(_PULSE))
                else:  # one value each: thousands of processes do not each read thousands
                    told = {f"{_PULSE}/0": self._store().key_value_try_get(f"{_PULSE}/0")}
                for process in self._heard:
                    self._note(process, told.get(f"{_PULSE}/{process}", ""))

    def _note(self, process: int, value: str) -> None:
        if self._values.get(process, "") != value:
            self._values[process], self._heard[process] = value, time.monotonic()

    def _look(self) -> None:
        before = time.monotonic()
        while not self.left.wait(self._beat / 2):
            now = time.monotonic()
            if now - before > 4 * self._beat:  # this process was stopped itself
                self._heard = dict.fromkeys(self._heard, now)
            before = now
            for process, heard in self._heard.items():
                value = self._values.get(process, "")
                if value.startswith(_GONE):
                    self._end_without(process, value.removeprefix(_GONE))
                elif now - heard > self._patience:
                    self._end_without(process, f"no sign of life for {self._patience:.0f} s")

    def _end_without(self, process: int, reason: str) -> NoReturn:
        # Process 0 also passes on what it knows about another.
        known = reason.startswith("process ")
        gone = reason if known else f"process {process} of {self._count} is gone ({reason})"
        if self._process == 0:
            self.tell(gone)
        self._end(
            f"{gone}; run the same command in every process to resume from the last checkpoint", 1
        )


class Tunnel:
    """A port of this host that leads to `address`, and stays open when `address` hangs up."""

    def __init__(self, address: str, hung_up: Callable[[], bool]):
        host, port = address.rsplit(":", 1)
        self._target, self._hung_up = (host.strip("[]"), int(port)), hung_up
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        for name in ("no_grpc_proxy", "no_proxy"):  # gRPC reads the first of them that is set
            if name in os.environ:
                os.environ[name] += ",127.0.0.1"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            near, _ = self._server.accept()
            threading.Thread(target=self._connect, args=[near], daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._target, timeout=5)
        except OSError:
            _hang_up(near)  # the client tries again
            return
        far.settimeout(None)
        closed = threading.Event()
        threading.Thread(target=self._outwards, args=[near, far, closed], daemon=True).start()
        _pump(far, near)
        if closed.is_set() or not self._hung_up():
            _hang_up(near)

    def _outwards(self, near: socket.socket, far: socket.socket, closed: threading.Event) -> None:
        _pump(near, far)
        closed.set()
        _hang_up(far)


def _hang_up(connection: socket.socket) -> None:
    """Closes a connection even if another thread is waiting for bytes from it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Passes on bytes until one of the two hangs up."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


def _place(cluster: Mapping[str, Any]) -> tuple[str, int, int]:
    """Returns the address of the coordinator, the number of processes, and our own number."""
    if cluster:
        return cluster["coordinator_address"], cluster["num_processes"], cluster["process_id"]
    from jax._src.clusters import ClusterEnv  # has no public name

    found: Any = ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, None, None, int(_ARRIVAL)
    )
    return found[:3]


@contextlib.contextmanager
def _time_limit(address: str, count: int, process: int) -> Any:
    """Ends the process if the others do not come; jax is in C++ meanwhile, out of reach."""
    who = f"not all of {count} processes arrived" if process == 0 else "process 0 does not answer"
    line = (
        f"{who} at {address} within {_ARRIVAL:.0f} s; start the same command in each of the {count} "
        "processes, or correct the address and the number (JAX_COORDINATOR_ADDRESS, "
        "JAX_NUM_PROCESSES)"
    )
    timer = threading.Timer(_ARRIVAL, _end, [line, 2])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(line: str, code: int) -> NoReturn:
    """Ends the process from any thread; a progress bar may be on the last line."""
    sys.stdout.flush()
    sys.stderr.write(f"\nerror: {line}\n")
    sys.stderr.flush()
    os._exit(code)
