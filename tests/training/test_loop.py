"""The loop: what it writes, when it saves, and that it compiles one step once."""

import math
import os
import re
import signal
import time

import jax
import pytest

from jaxcon.training.checkpoint import Checkpoints
from jaxcon.training.clock import read_times
from jaxcon.training.devices import batch_sharding, make_mesh, replicate
from jaxcon.training.loop import fit
from jaxcon.training.metrics import read_metrics
from jaxcon.training.step import make_train_step, shard_step
from tests.training.counting import begin, count, counting_step, run
from tests.training.toy import BATCH, make_batch, make_loss, make_state


def test_every_step_is_taken_logged_and_the_last_is_saved(tmp_path):
    result, (saved, state) = run(tmp_path, steps=10)
    assert result.finished
    assert (result.state.step, result.state.sum, result.state.skipped) == (10, 45, 0)
    assert (saved, int(state.sum)) == (10, 45)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(10))
    assert [row["loss_over_chance"] for row in rows] == [(2 + n) / 4 for n in range(10)]
    assert list((tmp_path / "events").iterdir())


def test_a_resumed_run_cuts_the_log_back_to_its_checkpoint(tmp_path):
    run(tmp_path, steps=10)
    state = begin(4, 6)
    result, _ = run(tmp_path, steps=12, state=state)
    assert int(result.state.sum) == sum(range(12))
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == list(range(12))


def test_the_wait_for_input_is_logged_where_batches_are_read(tmp_path):
    """And readers are closed at the end, though they could go on."""
    closed = []

    class Stream:
        def __init__(self, start):
            self.numbers = count(start)

        def __next__(self):
            return next(self.numbers)

        def ready(self):
            return False

        def close(self):
            closed.append(True)

    run(tmp_path, steps=4, batches=Stream)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [0 <= row.get("input_wait", -1) <= 1 for row in rows] == [False, True, True, True]
    assert read_times(tmp_path / "times.json")[0].waited > 0
    assert closed == [True]


def test_a_finished_state_is_left_alone(tmp_path):
    state = begin(5)
    result, _ = run(tmp_path, steps=5, state=state)
    assert result == (state, True)


def test_nothing_is_compiled_after_the_first_step(tmp_path):
    """A learning rate that is a Python float, or a state that changes its type, would show here."""
    compiled = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(duration)

    mesh = make_mesh(jax.devices()[:2])
    sharded = shard_step(make_train_step(make_loss("batch"), ema_decay=0.9), mesh)
    key, counts = jax.random.key(7), []

    def step(state, batch):
        output = sharded(state, batch, key)
        counts.append(len(compiled))
        return output

    def batches(start):
        for number in count(start):
            yield jax.device_put(make_batch(number), batch_sharding(mesh))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        with Checkpoints(tmp_path / "checkpoints") as checkpoints:
            result = fit(
                replicate(make_state(average=True), mesh),
                step,
                batches,
                steps=12,
                batch_size=BATCH,
                chance=1.0,
                folder=tmp_path,
                checkpoints=checkpoints,
                checkpoint_every=4,
                log_every=5,
            )
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert int(result.state.step) == 12
    assert counts[0] >= 1
    assert counts[-1] == counts[0]


def test_the_bar_says_compiling_then_each_of_the_first_steps_and_the_time_that_is_left(
    tmp_path, capsys
):
    """Each of 1,000 steps takes a twentieth of a second; the first one, which compiles, two."""

    def step(state, batch):
        time.sleep(2.0 if batch == 0 else 0.05)
        if batch == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return counting_step()(state, batch)

    run(tmp_path, steps=1000, step=step, log_every=4)
    shown = [text for text in re.split(r"[\r\n]+", capsys.readouterr().err) if text.strip()]
    assert shown[0].startswith("compiling:   0%")
    assert not any("compiling" in text for text in shown if "0/1000" not in text)
    assert {1, 2, 3, 4} <= {int(n) for text in shown for n in re.findall(r" (\d+)/1000 ", text)}
    (left, *_) = (
        re.search(r" 2/1000 \[.*<(\d+):(\d+)", text) for text in shown if " 2/1000" in text
    )
    minutes, seconds = map(int, left.groups())
    assert 40 <= 60 * minutes + seconds < 500  # 50; from both steps it would be 1,000
    (session,) = read_times(tmp_path / "times.json")
    assert (session.start, session.stop) == (0, 8)
    assert session.first >= 2 > session.seconds - session.first


def test_a_run_that_was_stopped_notes_the_time_of_both_its_parts(tmp_path):
    run(tmp_path, steps=8)
    run(tmp_path, steps=12, state=begin(8, 28))
    sessions = read_times(tmp_path / "times.json")
    assert [(session.start, session.stop) for session in sessions] == [(0, 8), (8, 12)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", -1),
        ("steps", 2.5),
        ("batch_size", 0),
        ("batch_size", -3),
        ("chance", 0.0),
        ("chance", math.nan),
        ("checkpoint_every", 0),
        ("log_every", -2),
    ],
)
def test_a_loop_of_numbers_out_of_range_is_refused(tmp_path, name, value):
    """Before anything is written."""
    settings = {"steps": 3, "batch_size": 2, "chance": 1.0, "checkpoint_every": 1, "log_every": 1}
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        with pytest.raises(ValueError, match=rf"^{name}: expected a .*, got {value}$"):
            fit(
                begin(),
                counting_step(),
                count,
                folder=tmp_path,
                checkpoints=checkpoints,
                **(settings | {name: value}),
            )
        assert checkpoints.steps() == []


def test_to_keep_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^keep: expected a whole number of at least 1, got 0$"):
        Checkpoints(tmp_path / "checkpoints", keep=0)


def test_metrics_of_the_steps_before_a_checkpoint_are_there_before_it(tmp_path, monkeypatch):
    """Else a run that is killed after it would never write them."""
    rows, save = {}, Checkpoints.save

    def look(checkpoints, step, state):
        rows[step] = len(read_metrics(tmp_path / "metrics.jsonl"))
        save(checkpoints, step, state)

    monkeypatch.setattr(Checkpoints, "save", look)
    run(tmp_path, steps=40, checkpoint_every=4, log_every=10)
    assert rows == {step: step for step in range(0, 41, 4)}
