"""Times of a run: those of all its processes, however they ended."""

import pytest

from jaxcon.training.clock import Clock, Session, read_times, steps_per_second


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
