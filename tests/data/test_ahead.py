"""Items from a thread: in order, no more of them than wait, and the thread ends."""

import gc
import itertools
import threading

import jax
import jax.numpy as jnp
import pytest

from jaxcon.data.ahead import Ahead


def threads():
    return sum(thread.name == "ahead" for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def no_thread_is_left():
    gc.collect()
    before = threads()
    yield
    gc.collect()
    assert threads() == before


def test_items_come_in_their_order_and_then_it_is_over():
    ahead = Ahead(lambda: iter(range(5)))
    assert list(ahead) == [0, 1, 2, 3, 4]
    assert list(ahead) == []
    assert ahead.ready()


def test_one_item_waits_and_one_is_in_the_making():
    made, begun = [], threading.Semaphore(0)

    def items():
        for number in itertools.count():
            made.append(number)
            begun.release()
            yield number

    ahead = Ahead(items)
    for _ in range(2):
        assert begun.acquire(timeout=30)
    assert made == [0, 1]
    assert ahead.ready()
    assert next(ahead) == 0
    assert begun.acquire(timeout=30)
    assert made == [0, 1, 2]
    ahead.close()
    assert list(ahead) == []


def test_it_says_when_there_is_nothing_yet():
    go = threading.Event()

    def items():
        go.wait(30)
        yield 1

    ahead = Ahead(items)
    assert not ahead.ready()
    go.set()
    assert next(ahead) == 1


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        raise KeyError("what")

    ahead = Ahead(items)
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="what"):
        next(ahead)
    assert list(ahead) == []


@pytest.mark.parametrize("end", ["closed", "lost"])
def test_what_is_closed_or_lost_closes_its_items(end):
    closed = threading.Event()

    def items():
        try:
            yield from itertools.count()
        finally:
            closed.set()

    ahead = Ahead(items)
    next(ahead)
    if end == "closed":
        ahead.close()
    del ahead
    gc.collect()
    assert closed.wait(30)


def test_the_thread_knows_the_default_device():
    device = jax.devices()[3]
    with jax.default_device(device):
        ahead = Ahead(lambda: (jnp.ones(n) for n in (1, 2)))
    assert [item.devices() for item in ahead] == [{device}] * 2
