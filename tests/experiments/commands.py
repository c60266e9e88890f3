"""What every experiment's command line is held to: one line for a wrong option, and resumed runs."""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
import pytest

from jaxcon.training.checkpoint import Checkpoints
from jaxcon.training.digests import state_hash
from jaxcon.training.metrics import read_metrics

# Of a folder of 28 images.
SHORT = ["--encoder=mlp", "--epochs=4", "--batch-size=8", "--checkpoint-every=5"]  # 12 steps
HERE = ["--accelerator=cpu", "--num-devices=1"]


def refused(main: Callable[..., Any], flags: Sequence[str], capsys: Any) -> str:
    """The one line in which a command refuses its options, with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main(list(flags))
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def ended(main: Callable[..., Any], flags: Sequence[str], capsys: Any) -> str:
    """The last line of a command that trains first: an error, exit code 2, and no traceback."""
    with pytest.raises(SystemExit) as ended:
        main(list(flags))
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    last = error.splitlines()[-1]
    assert last.startswith("error: ")
    return last


def end_alike(command: Callable[[Path], list[str]], folder: Path) -> tuple[int, str]:
    """Holds a run that is killed and started again to the state and scores of one that is not.

    Returns the last step, and what the command printed when it was started again.
    """
    environ = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    whole, killed = folder / "whole", folder / "killed"
    subprocess.run(command(whole), check=True, env=environ, capture_output=True)
    null = subprocess.DEVNULL
    process = subprocess.Popen(command(killed), env=environ, stdout=null, stderr=null)
    while len(read_metrics(killed / "metrics.jsonl")) < 15:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    again = subprocess.run(command(killed), check=True, env=environ, capture_output=True, text=True)
    assert _last_state(killed) == _last_state(whole)
    assert (killed / "results.json").read_text() == (whole / "results.json").read_text()
    return _last_state(whole)[0], again.stdout


def _last_state(folder: Path) -> tuple[int, str]:
    """Step and hash of the parameters and statistics in the last checkpoint, without the experiment."""
    with Checkpoints(folder / "checkpoints") as checkpoints:
        manager = checkpoints._manager
        step = manager.latest_step()
        wanted = ocp.args.Composite(state=ocp.args.StandardRestore())
        leaves = manager.restore(step, args=wanted)["state"]
    return step, state_hash(jax.device_get(leaves))
