"""One process at a time in a folder of a store: who is alive is left alone, who is gone is replaced."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from jaxcon.stores import Store, StoreError, lease
from jaxcon.stores.lease import NAME, Lease

BRIEF = {"beat": 0.02, "patience": 0.4}


@pytest.fixture
def store(objects):
    return Store("gs://bucket/run")


def left_by(store, **owner) -> None:
    """What another process wrote there."""
    owner = {"host": "elsewhere", "pid": 7, "kernel": "k", "token": "theirs", **owner}
    store.write(NAME, json.dumps(owner).encode())


def wait(true):
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_it_is_renewed_until_it_is_released(store):
    mine = Lease(store, **BRIEF)
    first = store.read(NAME)
    wait(lambda: store.read(NAME) != first)
    mine.check()
    mine.release()
    assert store.read(NAME) is None


def test_a_process_that_is_alive_is_left_alone(store):
    alive = threading.Event()

    def beat():
        number = 0
        while not alive.wait(0.05):
            left_by(store, beat=(number := number + 1))

    left_by(store)
    other, told = threading.Thread(target=beat), []
    other.start()
    with pytest.raises(StoreError, match="process 7 on elsewhere is training in this folder"):
        Lease(store, say=told.append, **BRIEF)
    alive.set()
    other.join()
    assert "was in use by process 7 on elsewhere; if that one was killed" in told[0]
    assert json.loads(store.read(NAME))["token"] == "theirs"


def test_a_process_that_was_killed_elsewhere_is_replaced_after_a_while(store):
    left_by(store)
    begin = time.monotonic()
    Lease(store, say=len, **BRIEF).check()
    assert time.monotonic() - begin > BRIEF["patience"] / 2


def test_one_that_ends_meanwhile_is_not_waited_for(store):
    left_by(store)
    threading.Timer(0.1, store.remove, [[NAME]]).start()
    Lease(store, say=len, beat=1.0, patience=60.0).check()


def test_a_process_that_was_killed_here_is_replaced_at_once(store):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left_by(store, **{**lease._owner(), "pid": gone.pid})
    Lease(store, say=pytest.fail).check()


def test_the_same_number_on_another_machine_is_another_process(store):
    left_by(store, **{**lease._owner(), "kernel": "another", "pid": 2**22 + 1})
    assert not lease._is_gone(store.read(NAME))


@pytest.mark.parametrize("found", [b"", b"{", b"[]", b"{}", b'{"pid": "x"}'])
def test_a_damaged_one_is_nobodys(store, found):
    store.write(NAME, found)
    Lease(store, say=pytest.fail).check()


def test_who_was_replaced_writes_nothing_more(store):
    mine = Lease(store, **BRIEF)
    left_by(store)
    with pytest.raises(StoreError, match="another process has taken over"):
        mine.check()
    time.sleep(5 * BRIEF["beat"])
    mine.release()
    assert json.loads(store.read(NAME))["token"] == "theirs"


def test_a_second_run_of_a_process_takes_over_from_the_first(store):
    first = Lease(store, **BRIEF)
    second = Lease(store, say=pytest.fail, **BRIEF)
    second.check()
    with pytest.raises(StoreError):
        first.check()
    assert os.getpid() == json.loads(store.read(NAME))["pid"]
