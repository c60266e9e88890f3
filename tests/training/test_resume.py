"""A run that is killed and started again ends in the same state, bit for bit."""

import os
import signal
import subprocess
import sys
import time

import pytest

from jaxcon.training.metrics import read_metrics
from tests.stress import kill_one


def start(folder, *, devices: int = 1) -> subprocess.Popen:
    environ = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.run_toy", str(folder), str(devices)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environ,
    )


def finish(process: subprocess.Popen) -> list[str]:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return out.split()


def wait_for(folder, lines: int) -> None:
    deadline = time.monotonic() + 300
    while len(read_metrics(folder / "metrics.jsonl")) < lines:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    word, digest = finish(start(folder))
    assert word == "finished"
    return digest, read_metrics(folder / "metrics.jsonl")


@pytest.mark.slow
def test_sigterm_saves_and_sigkill_loses_nothing(tmp_path, uninterrupted):
    first = start(tmp_path)
    wait_for(tmp_path, 25)
    first.send_signal(signal.SIGTERM)
    assert finish(first)[0] == "stopped"
    stopped_at = len(read_metrics(tmp_path / "metrics.jsonl"))
    assert (tmp_path / "checkpoints" / str(stopped_at)).is_dir()

    second = start(tmp_path)
    wait_for(tmp_path, stopped_at + 30)
    second.kill()
    assert second.wait() == -signal.SIGKILL
    assert second.communicate()[0].split()[:2] == ["resumed", str(stopped_at)]

    words = finish(start(tmp_path))
    assert words[0] == "resumed"
    assert int(words[1]) > stopped_at
    assert words[2:] == ["finished", uninterrupted[0]]
    assert read_metrics(tmp_path / "metrics.jsonl") == uninterrupted[1]


@pytest.mark.slow
def test_kills_at_random_moments_and_in_saves(tmp_path):
    """Of a run of digits; `python -m tests.stress` does it a hundred times."""
    assert "the same parameters" in kill_one(tmp_path, kills=4, in_save=2)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_devices(tmp_path, uninterrupted):
    first = start(tmp_path, devices=4)
    wait_for(tmp_path, 40)
    first.send_signal(signal.SIGTERM)
    assert finish(first)[0] == "stopped"
    assert finish(start(tmp_path, devices=2))[-2] == "finished"
    expected = [row["loss"] for row in uninterrupted[1]]
    losses = [row["loss"] for row in read_metrics(tmp_path / "metrics.jsonl")]
    assert losses == pytest.approx(expected, rel=1e-3)
