"""The losses as compiled for accelerators that are not here: the rule takes nearly the best form.

Needs a compiler for TPUs or GPUs (`jaxcon.planning.topologies.missing` names the command); each runs in
a process of its own, for its environment is read when jax starts. `.ci/compiled` brings that of TPUs.
"""

import json
import subprocess
import sys

import pytest

from jaxcon.planning.topologies import CHIPS, missing

pytestmark = pytest.mark.slow

# Up to so much over the best form that was tried, and over dense code. SigLIP's own positives and exact
# norms cost a tenth more than plain jnp where the whole matrix fits into a TPU's fast memory.
ALLOWED = {"clip": 1.05, "ntxent": 1.05, "siglip": 1.12}


def cells(chip, tmp_path, *pairs):
    """All forms of the three losses of `benchmarks.compiled`, by its command."""
    if command := missing(CHIPS[chip].platform):
        pytest.skip(f"no compiler for {CHIPS[chip].name} here: {command}")
    command = [sys.executable, "-m", "benchmarks.compiled", "--chips", chip, "--out", str(tmp_path)]
    command += ["--parts", "forms"]
    run = subprocess.run(
        [*command, "--pairs", *map(str, pairs)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "compiled.md").read_text(encoding="utf-8").startswith("# ")
    return json.loads((tmp_path / "compiled.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("chip", ["v5e", "h100"])
def test_the_default_is_nearly_the_best_form(chip, tmp_path):
    for name, forms in cells(chip, tmp_path, 4096).items():
        best = min(form["ms"] for form in forms.values() if form)
        assert forms["default"]["ms"] <= ALLOWED[name.split()[2]] * best, (name, forms)
        assert forms["default"]["mib"] <= 512


@pytest.mark.parametrize("slice_", ["3x3", "1x1", ""])
def test_a_slice_that_does_not_exist_is_one_line(slice_, tmp_path):
    if command := missing("tpu"):
        pytest.skip(f"no compiler for TPUs here: {command}")
    command = [sys.executable, "-m", "experiments.simclr", f"--plan=v5e:{slice_}"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    last = run.stderr.splitlines()[-1]
    assert last.startswith(f"error: --plan=v5e:{slice_}: topology: expected a slice of TPU v5e")


def test_a_plan_for_chips_that_are_not_here(tmp_path):
    if command := missing("tpu"):
        pytest.skip(f"no compiler for TPUs here: {command}")
    plan = tmp_path / "plan.json"
    command = [sys.executable, "-m", "experiments.simclr", "--plan=v5e:2x2", f"--plan-json={plan}"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "4 x TPU v5e" in run.stdout
    found = json.loads(plan.read_text(encoding="utf-8"))
    assert found["fits"]
    assert found["arguments"] + found["temporaries"] <= found["needed"] < 2**28
    assert 0 < found["ms"] < 10
    assert 0 < found["loss_share"] < 0.5
    assert 0 < found["share_of_peak"] < 0.5
    assert found["collectives"]["all-reduce"]["sent"] >= 4 * found["parameters"]


def test_a_plan_counts_what_fusions_send(tmp_path):
    """On TPUs weights in shards are gathered inside of fusions, begun in one and ended in another."""
    if command := missing("tpu"):
        pytest.skip(f"no compiler for TPUs here: {command}")
    plan = tmp_path / "plan.json"
    command = [sys.executable, "-m", "experiments.simclr", "--plan=v5e:2x2", f"--plan-json={plan}"]
    command += ["--shard-state", "--precision=bf16"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(plan.read_text(encoding="utf-8"))
    gathered = found["collectives"]["all-gather"]["sent"]
    whole = found["parameters"] * 3 / 4
    assert 1.8 * whole < gathered < 4.5 * whole, run.stdout  # in bfloat16 or in float32
