"""Several processes: who is gone is noticed, named, and the others end."""

import os
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from jaxcon.training import ranks
from jaxcon.training.ranks import Tunnel, Watch
from tests.stress import LIMIT, stop_ranks


class Store:
    """JAX's key-value store, in memory."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value, allow_overwrite):
        assert allow_overwrite
        self.values[key] = value

    def key_value_try_get(self, key):
        return self.values[key]

    def key_value_dir_get(self, key):
        return [(name, value) for name, value in self.values.items() if name.startswith(key)]


class EndedError(BaseException):
    """In place of the end of the process."""


@pytest.fixture
def world(monkeypatch):
    """A store, the lines with which watches ended their processes, and a watch that runs faster."""
    store, ends = Store(), []

    def end(line, code):
        ends.append((line, code))
        raise EndedError

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    quick = partial(Watch, store=lambda: store, end=end, beat=0.02, patience=0.5)
    return store, ends, quick


def watches(quick, count):
    started = [quick(process, count) for process in range(count)]
    for watch in started:
        watch.start()
    return started


def wait(true, seconds=10):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def leave(started):
    for watch in started:
        watch.left.set()
    time.sleep(0.1)  # for their threads, which would speak in the next test


def test_while_all_count_nobody_ends(world):
    store, ends, quick = world
    started = watches(quick, 3)
    wait(lambda: all(int(store.values.get(f"jaxcon/pulse/{p}", 0)) > 40 for p in range(3)))
    assert ends == []
    leave(started)


@pytest.mark.parametrize("silent", [0, 2])
def test_who_falls_silent_is_named_by_all_others(world, silent):
    store, ends, quick = world
    started = watches(quick, 3)
    wait(lambda: len(store.values) == 3)
    started[silent].left.set()
    wait(lambda: len(ends) == 2)
    for line, code in ends:
        assert line.startswith(f"process {silent} of 3 is gone (no sign of life for ")
        assert line.endswith(
            "run the same command in every process to resume from the last checkpoint"
        )
        assert code == 1
    leave(started)


@pytest.mark.parametrize("wrong", [0, 1])
def test_what_one_says_at_its_end_all_others_repeat(world, wrong):
    store, ends, quick = world
    started = watches(quick, 3)
    wait(lambda: len(store.values) == 3)
    started[wrong].tell("the disk is full")
    started[wrong].left.set()
    wait(lambda: len(ends) == 2)
    for line, _ in ends:
        assert line.startswith(f"process {wrong} of 3 is gone (the disk is full); run the same")
    leave(started)


def test_a_process_that_was_stopped_itself_does_not_blame_the_others(world, monkeypatch):
    """As after the lid of a laptop was closed on all of them."""
    store, ends, quick = world
    jump = [0.0]
    clock = time.monotonic
    monkeypatch.setattr(ranks.time, "monotonic", lambda: clock() + jump[0])
    started = watches(quick, 2)
    wait(lambda: len(store.values) == 2)
    jump[0] = 1000.0
    clock_before = clock()
    while clock() < clock_before + 1:
        time.sleep(0.01)
    assert ends == []
    leave(started)


def echo():
    """A server that answers what it is told; returns its address and a function that hangs up."""
    server = socket.create_server(("127.0.0.1", 0))
    taken = []

    def serve():
        connection, _ = server.accept()
        taken.append(connection)
        while data := connection.recv(1000):
            connection.sendall(data)

    threading.Thread(target=serve, daemon=True).start()

    def hang_up():
        taken[0].shutdown(socket.SHUT_RDWR)
        taken[0].close()

    return f"127.0.0.1:{server.getsockname()[1]}", hang_up


@pytest.mark.parametrize("silent", [True, False])
def test_a_tunnel_passes_on_everything_but_the_end(silent):
    address, hang_up = echo()
    asked = threading.Event()

    def hung_up():
        asked.set()
        return silent

    tunnel = Tunnel(address, hung_up)
    host, port = tunnel.address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as client:
        client.sendall(b"x" * 100_000)
        received = b""
        while len(received) < 100_000:
            received += client.recv(65536)
        assert received == b"x" * 100_000
        hang_up()
        assert asked.wait(5)
        client.settimeout(0.5)
        if silent:
            with pytest.raises(TimeoutError):
                client.recv(1)
        else:
            assert client.recv(1) == b""


def test_a_tunnel_to_nobody_lets_the_client_try_again():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    tunnel = Tunnel(address, lambda: True)
    host, port = tunnel.address.split(":")
    for _ in range(2):
        with socket.create_connection((host, int(port)), timeout=5) as client:
            assert client.recv(1) == b""


def test_a_client_that_closes_is_no_loss():
    address, _ = echo()
    lost = []
    tunnel = Tunnel(address, lambda: lost.append(1) or True)
    host, port = tunnel.address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    time.sleep(0.3)
    assert lost == []


def alone(code, **environ):
    kept = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=kept | environ, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    ("process", "said"),
    [("0", "not all of 2 processes arrived at "), ("1", "process 0 does not answer at ")],
)
def test_others_that_never_come_are_one_line(process, said):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    code = "from jaxcon.training import devices, ranks\nranks._ARRIVAL = 3.0\n"
    code += "devices.select_accelerator('cpu')"
    done = alone(
        code, JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES="2", JAX_PROCESS_ID=process
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {said}{address} within 3 s")
    assert "JAX_COORDINATOR_ADDRESS" in last
    assert "@" not in last


def test_a_number_beyond_the_job_is_an_error():
    cluster = {"coordinator_address": "localhost:1", "num_processes": 2, "process_id": 2}
    with pytest.raises(ValueError, match=r"JAX_PROCESS_ID=2: expected a number from 0 to 1, for"):
        ranks.join(cluster)


def test_a_single_process_waits_for_nobody():
    start = time.monotonic()
    ranks.end_if_another_is_gone()
    ranks.end_with_others("nothing", 1)
    ranks.leave()
    assert time.monotonic() - start < 0.5


ONE_FAILS = """
import sys
from experiments import simclr
from experiments.running import console, runner
from jaxcon.data.splits import DataError
console.install()
import jax
def fail(*_, **__):
    if jax.process_index() == int(sys.argv.pop()):
        raise {error}
    import time
    time.sleep(60)
sys.argv, runner.pretrain = [sys.argv[0], *sys.argv[1:]], fail
simclr.main(sys.argv[1:-1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [0, 1])
@pytest.mark.parametrize(
    ("error", "code", "tracebacks"), [("DataError('bad image')", 2, 0), ("KeyError('bug')", 1, 1)]
)
def test_an_error_of_one_ends_the_others_with_its_line(tmp_path, wrong, error, code, tracebacks):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        job = {
            "JAX_COORDINATOR_ADDRESS": f"localhost:{probe.getsockname()[1]}",
            "JAX_NUM_PROCESSES": "2",
        }
    kept = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                ONE_FAILS.format(error=error),
                f"--workdir={tmp_path}",
                str(wrong),
            ],
            env=kept | job | {"JAX_PROCESS_ID": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert processes[wrong].returncode == code
    assert processes[1 - wrong].returncode == 1
    assert said[wrong].count("Traceback") == tracebacks
    assert "Traceback" not in said[1 - wrong]
    last = said[1 - wrong].splitlines()[-1]
    assert last.startswith(f"error: process {wrong} of 2 is gone (")
    assert "bad image" in last or "bug" in last


@pytest.mark.slow
def test_a_killed_and_a_stopped_process_end_the_other_in_time(tmp_path):
    told = stop_ranks(tmp_path, kills=1, stops=1)
    assert f"gone after {LIMIT:.1f}" not in told
