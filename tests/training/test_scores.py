"""Scores of the state while it trains: at fixed steps, whatever was stopped and resumed between."""

import pytest

from jaxcon.training.checkpoint import Checkpoints
from jaxcon.training.metrics import read_metrics
from tests.training.counting import begin, run


def scored(calls=None):
    """An evaluation: the sum of the batches so far, doubled."""

    def evaluate(state):
        if calls is not None:
            calls.append(int(state.step))
        return {"twice": 2.0 * float(state.sum)}

    return evaluate


def rows_of(folder):
    return {
        row["step"]: row["twice"]
        for row in read_metrics(folder / "metrics.jsonl")
        if "twice" in row
    }


def test_scores_stand_beside_the_metrics_of_the_step_that_made_the_state(tmp_path):
    calls = []
    run(tmp_path, steps=10, evaluate=scored(calls), evaluate_every=4)
    assert calls == [4, 8, 10]  # the last step always
    assert rows_of(tmp_path) == {step: step * (step + 1) for step in (3, 7, 9)}
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["loss"] for row in rows] == [2.0 + step for step in range(10)]


def test_a_resumed_run_has_the_scores_of_an_uninterrupted_one(tmp_path):
    run(tmp_path / "whole", steps=12, evaluate=scored(), evaluate_every=5)
    run(tmp_path / "parts", steps=7, evaluate=scored(), evaluate_every=5)
    # The checkpoint is of step 4; what came after is computed again.
    run(tmp_path / "parts", steps=12, state=begin(4, 6), evaluate=scored(), evaluate_every=5)
    names = [folder / "metrics.jsonl" for folder in (tmp_path / "whole", tmp_path / "parts")]
    assert names[0].read_text() == names[1].read_text()
    assert rows_of(tmp_path / "parts").keys() == {4, 9, 11}


def test_without_an_evaluation_there_are_none(tmp_path):
    run(tmp_path, steps=4, evaluate_every=1)
    assert rows_of(tmp_path) == {}


def test_an_evaluation_that_fails_costs_no_step(tmp_path):
    def fails(state):
        if state.step == 6:
            raise OSError("an image is gone")
        return {}

    with pytest.raises(OSError, match="an image is gone"):
        run(tmp_path, steps=9, checkpoint_every=9, evaluate=fails, evaluate_every=3)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == list(range(6))
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        step, state = checkpoints.restore(begin())
    assert (step, int(state.sum)) == (6, 15)


def test_a_number_of_steps_out_of_range_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^evaluate_every: expected a .*, got 0$"):
        run(tmp_path, steps=3, evaluate=scored(), evaluate_every=0)
