"""Times of a run: those of all its processes, however they ended."""

import time

import jax
import pytest

from jaxcon.training.clock import (
    Clock,
    InputWait,
    Session,
    input_wait,
    read_times,
    steps_per_second,
)


def test_sessions_of_a_run_that_was_stopped_are_added(tmp_path):
    path = tmp_path / "times.json"
    first = Clock(path, start=0)
    first.tick(1)
    first.tick(4)
    first.save()
    second = Clock(path, start=4)
    second.tick(5)
    second.tick(9)
    second.save()
    second.save()  # the same session, not another one
    sessions = read_times(path)
    assert [(s.start, s.stop) for s in sessions] == [(0, 4), (4, 9)]
    assert all(0 <= s.first <= s.seconds for s in sessions)


def test_the_rate_leaves_out_the_steps_that_compile():
    assert steps_per_second([Session(0, 101, 60.0, 10.0), Session(90, 111, 30.0, 20.0)]) == 120 / 60
    assert steps_per_second([Session(0, 1, 10.0, 10.0)]) is None
    assert steps_per_second([]) is None


@pytest.mark.parametrize("text", ["", "[{}]", "[1]", '{"start": 0}', "[{"])
def test_a_damaged_file_is_no_file(tmp_path, text):
    (tmp_path / "times.json").write_text(text)
    assert read_times(tmp_path / "times.json") == []


class Slow:
    """Batches of which the second and third are late."""

    def __init__(self, seconds):
        self.seconds, self.asked = seconds, 0

    def __next__(self):
        self.asked += 1
        if not self.ready_before:
            time.sleep(self.seconds)
        return self.asked

    def ready(self):
        self.ready_before = self.asked not in (0, 1, 2)
        return self.ready_before


def test_waiting_for_input_is_measured_but_for_the_first_batch():
    wait, batches = InputWait(), Slow(0.05)
    assert wait.share() is None
    assert wait.take(batches, {}) == 1
    assert wait.seconds == 0
    assert wait.take(batches, {}) == 2
    assert wait.take(batches, {}) == 3
    assert wait.seconds >= 0.1
    assert 0 < wait.share() <= 1
    before = wait.seconds
    assert wait.take(batches, {}) == 4
    assert wait.seconds == before
    assert wait.share() == 0


def test_what_the_devices_still_compute_is_not_waiting(monkeypatch):
    """The clock starts when they are done."""
    order = []
    monkeypatch.setattr(jax, "block_until_ready", lambda pending: order.append(pending))
    monkeypatch.setattr(time, "monotonic", lambda: order.append("clock") or 0.0)
    InputWait().take(Slow(0), "step")
    assert order == ["step", "clock"]


def test_batches_in_memory_are_not_waited_for():
    wait = InputWait()
    assert [wait.take(iter([5]), {}), wait.share(), wait.share()] == [5, None, None]


def test_times_of_runs_before_there_was_a_wait_are_read(tmp_path):
    (tmp_path / "times.json").write_text('[{"start": 0, "stop": 3, "seconds": 4.0, "first": 1.0}]')
    (session,) = read_times(tmp_path / "times.json")
    assert session.waited == 0
    assert input_wait([session]) == 0
    assert input_wait([]) is None
