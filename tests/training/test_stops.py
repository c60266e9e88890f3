"""What ends a run before its last step: signals, broken data, a full disk, lost steps."""

import math
import os
import shutil
import signal

import pytest

from jaxcon.training.checkpoint import Checkpoints, DiskFullError
from jaxcon.training.loop import fit
from jaxcon.training.metrics import read_metrics
from tests.training.counting import begin, counting_step, run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_saves_and_returns(tmp_path, number):
    def step(state, batch):
        if batch == 5:
            os.kill(os.getpid(), number)
        return counting_step()(state, batch)

    before = signal.getsignal(number)
    result, (saved, _) = run(tmp_path, steps=100, step=step)
    assert not result.finished
    assert (int(result.state.step), saved) == (6, 6)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_the_last_step_stops_what_follows(tmp_path, number):
    def step(state, batch):
        if batch == 9:
            os.kill(os.getpid(), number)
        return counting_step()(state, batch)

    result, (saved, _) = run(tmp_path, steps=10, step=step)
    assert not result.finished
    assert (int(result.state.step), saved) == (10, 10)


def test_ctrl_c_while_the_first_step_compiles_ends_at_once(tmp_path):
    def step(state, batch):
        os.kill(os.getpid(), signal.SIGINT)
        return counting_step()(state, batch)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, steps=10, step=step)


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    def step(state, batch):
        if batch == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return counting_step()(state, batch)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, steps=10, step=step)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class BrokenError(Exception):
    """What a batch may raise."""


@pytest.mark.parametrize("broken_at", [0, 1, 4, 6])
def test_data_that_break_end_the_run_with_the_state_reached(tmp_path, broken_at):
    def batches(start):
        for number in range(start, 10):
            if number == broken_at:
                raise BrokenError
            yield number

    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        with pytest.raises(BrokenError):
            fit(
                begin(),
                counting_step(),
                batches,
                steps=10,
                batch_size=8,
                chance=4.0,
                folder=tmp_path,
                checkpoints=checkpoints,
                checkpoint_every=4,
                log_every=3,
            )
        saved, state = checkpoints.restore(begin())
    assert (saved, int(state.sum)) == (broken_at, sum(range(broken_at)))
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(broken_at))


def test_a_full_disk_ends_the_run_with_the_checkpoints_before(tmp_path, monkeypatch):
    usage = shutil.disk_usage
    free = iter([2**40, 2**40, 3])  # for checkpoints 0, 4 and 8
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=next(free)))
    with pytest.raises(DiskFullError, match="0 MiB free, checkpoint 8 needs 0"):
        run(tmp_path, steps=10)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.restore(begin())[0] == 4


def test_losses_that_stay_infinite_end_the_run(tmp_path):
    step = counting_step(lambda batch: math.nan if batch >= 20 else 1.0)
    with pytest.raises(FloatingPointError, match="smaller --learning-rate"):
        run(tmp_path, steps=1000, step=step)
    losses = [row["loss"] for row in read_metrics(tmp_path / "metrics.jsonl")]
    assert losses[19:21] == [1.0, None]
    assert len(losses) < 75


def test_a_few_lost_steps_do_not(tmp_path):
    step = counting_step(lambda batch: math.inf if batch % 10 < 4 else 1.0)
    result, _ = run(tmp_path, steps=100, step=step)
    assert int(result.state.skipped) == 40
