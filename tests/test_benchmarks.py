"""The benchmarks that need no peers run at a small size; they are not imported by anything else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # .ci/run runs them


@pytest.mark.parametrize(
    ("name", "flags", "table"),
    [
        ("every_loss", ("--rows=64", "--dim=16"), "| `ntxent_loss` |"),
        ("forms", ("--pairs=32", "--dims=16"), "| CLIP | 16 | 32 |"),
        ("scaling", ("--pairs=64", "--dim=16"), "| NT-Xent, ring | 8,192 |"),
    ],
)
def test_a_benchmark_writes_its_table(name, flags, table, tmp_path):
    command = [sys.executable, "-m", f"benchmarks.{name}", *flags, "--repeats=1"]
    root = Path(__file__).parents[1]
    subprocess.run([*command, f"--out={tmp_path}"], cwd=root, check=True, capture_output=True)
    assert table in (tmp_path / f"{name}.md").read_text()
    assert json.loads((tmp_path / f"{name}.json").read_text())


def test_the_parts_of_a_step_are_timed():
    from benchmarks.step import parts

    found = parts("digits", repeats=1)
    assert set(found) == {*("input", "views", "encoder", "loss", "optimizer", "step", "parameters")}
    assert all(value > 0 for value in found.values())
