"""What a command says of variables, folders, consoles and Ctrl-C: one line each."""

import os
import signal
import subprocess
import sys
import time

import pytest

from experiments import collapse, simclr, uncertainty
from jaxcon.training.metrics import read_metrics
from tests.experiments.commands import HERE, SHORT, refused
from tests.experiments.folders import pictures


def command(*flags, **environ):
    kept = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", *environ)}
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.simclr", *flags],
        env=kept | {k: v for k, v in environ.items() if v is not None},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        (
            {"JAX_PLATFORMS": "typo"},
            "error: JAX_PLATFORMS=typo is set, but jax finds no such platform here",
        ),
        ({"JAX_ENABLE_X64": "maybe"}, "error: JAX_ENABLE_X64=maybe is set: invalid truth value"),
        ({"SLURM_STEP_NUM_TASKS": "a"}, "error: SLURM_STEP_NUM_TASKS=a is set: expected a whole"),
    ],
)
def test_a_wrong_variable_is_named(tmp_path, environ, said):
    process = command(f"--workdir={tmp_path / 'run'}", **environ)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert err.startswith(said)
    assert err.count("\n") == 1


@pytest.mark.parametrize("experiment", [collapse, uncertainty])
def test_a_folder_that_cannot_be_written_is_told_before_the_work(tmp_path, capsys, experiment):
    (tmp_path / "file").write_text("")
    said = refused(experiment.main, [f"--output={tmp_path / 'file' / 'x'}"], capsys)
    assert f"--output={tmp_path / 'file' / 'x'}: expected a folder, found a file" in said


def test_a_package_that_is_missing_is_named(tmp_path):
    """As with another Python than that of the environment."""
    (tmp_path / "tyro.py").write_text("raise ModuleNotFoundError('No tyro', name='tyro')")
    process = command(
        "--help", PYTHONPATH=f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    )
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert err.startswith(f"error: tyro is not installed for {sys.executable}; `make simclr` sets")
    assert err.count("\n") == 1


def test_nobody_who_reads(tmp_path):
    """As of `| head`."""
    process = command("--help")
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=120) in (0, 2)
    assert "Traceback" not in err


def test_an_output_that_takes_no_more():
    """As of `> log.txt` on a full disk."""
    program = [sys.executable, "-m", "experiments.simclr", "--help"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(program, check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    said = "error: the output: No space left on device; run the same command to resume\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_no_home_and_no_account(monkeypatch, capsys, tmp_path):
    """As of a container's user: no HOME, and nothing in the list of accounts."""
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    monkeypatch.chdir(tmp_path)
    assert "set HOME or XDG_CACHE_HOME" in refused(simclr.main, HERE, capsys)
    for flag in ("--workdir=~/run", "--start-from=~/run", "--dataset=folder:~/pets"):
        assert "home" in refused(simclr.main, [*HERE, "--data-dir=data", flag], capsys)


@pytest.mark.slow
def test_a_console_of_ascii(tmp_path):
    data = pictures(tmp_path / "pets")
    flags = [f"--dataset=folder:{data}", f"--workdir={tmp_path / 'run'}", *SHORT]
    process = command(*flags, PYTHONIOENCODING="ascii", MPLBACKEND="nonsense")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert " +- " in out


@pytest.mark.slow
@pytest.mark.parametrize("moment", [1.5, 3.0, "compile", "train", "evaluate"])
def test_ctrl_c_is_one_line(tmp_path, moment):
    flags = [f"--workdir={tmp_path / 'run'}", "--epochs=100"]
    if moment == "evaluate":
        flags[1] = "--epochs=1"
    process = command(*flags)
    metrics = tmp_path / "run" / "metrics.jsonl"
    if moment == "compile":
        wait_until(process, metrics.exists)
        time.sleep(0.5)
    elif moment == "train":
        wait_until(process, lambda: len(read_metrics(metrics)) >= 3)
    elif moment == "evaluate":
        while process.stdout.readline() != "evaluating frozen features\n":
            assert process.poll() is None
    else:
        time.sleep(moment)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    last = err.splitlines()[-1] if process.returncode else out.splitlines()[-1]
    if moment == "train":
        assert process.returncode == 0
        assert last.startswith("stopped after step ")
    else:
        assert process.returncode == -signal.SIGINT
        assert (
            last
            == "stopped by Ctrl-C; run the same command to resume from the last checkpoint, if any"
        )


def wait_until(process, true):
    deadline = time.monotonic() + 120
    while not true():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
