"""The benchmarks that need no peers run at a small size; they are not imported by anything else."""

import ast
import json
import os
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
        ("scores", ("--rows=300", "--dim=16"), "| digits, 1,259 x 64 | kNN |"),
        ("scaling", ("--pairs=64", "--dim=16"), "| NT-Xent, ring | 8,192 |"),
    ],
)
def test_a_benchmark_writes_its_table(name, flags, table, tmp_path):
    command = [sys.executable, "-m", f"benchmarks.{name}", *flags, "--repeats=1"]
    root = Path(__file__).parents[1]
    subprocess.run([*command, f"--out={tmp_path}"], cwd=root, check=True, capture_output=True)
    assert table in (tmp_path / f"{name}.md").read_text()
    assert json.loads((tmp_path / f"{name}.json").read_text())


def test_a_large_batch_is_compiled_and_run():
    command = [sys.executable, "-m", "benchmarks.large", "--pairs=64", "--dim=8"]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    assert "clip_loss, 64 x 8" in done.stdout
    assert "gradients finite: True" in done.stdout


def test_what_an_accelerator_would_tell_is_told_as_far_as_the_time_goes(tmp_path):
    command = [sys.executable, "-m", "benchmarks.device", "--small", "--seconds=5"]
    root = Path(__file__).parents[1]
    subprocess.run([*command, f"--out={tmp_path}"], cwd=root, check=True, capture_output=True)
    rows = json.loads((tmp_path / "device.json").read_text())
    assert [row["what"] for row in rows[:3]] == ["machine", "matrix product, bfloat16", "copy"]
    assert all(row["gradient"] < 1e-4 for row in rows if row["what"] == "values")
    assert "| alignment_loss | one matrix |" in (tmp_path / "device.md").read_text()


def test_the_input_pipeline_is_measured_without_its_peer(tmp_path):
    command = [sys.executable, "-m", "benchmarks.input_pipeline", "--seconds=0.1", "--turns=1"]
    command += ["--workers", "0", "--readers", "jaxcon", f"--out={tmp_path}"]
    root = Path(__file__).parents[1]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    found = json.loads((tmp_path / "input_pipeline.json").read_text())
    small, large = (row["mean"] for row in found["pixels"])
    assert small < 2
    assert large < 4
    assert "| 2,000 x 1,500 | 0 | jaxcon |" in (tmp_path / "input_pipeline.md").read_text()


def test_errors_by_precision_are_written_and_products_are_rounded_as_told(tmp_path):
    command = [sys.executable, "-m", "benchmarks.precision", "--pairs=32", "--dim=16", "--seeds=1"]
    root = Path(__file__).parents[1]
    command += ["--chips", f"--out={tmp_path}"]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    assert "| siglip | 0.02 | aligned |" in (tmp_path / "precision.md").read_text()
    found = json.loads((tmp_path / "benchmarks" / "precision.json").read_text())
    for row in found["errors"]:
        of = {kind: row["float32"][kind]["gradient"] for kind in row["float32"]}
        assert of["HIGHEST"] < 1e-5
        assert of["HIGHEST, six passes"] < 1e-5
        assert of["HIGH, TPU"] < 1e-4
        if row["temperature"] == 0.02:
            assert of["HIGHEST"] < of["HIGH, TPU"] < of["HIGH, NVIDIA"] < of["bfloat16"] < 0.1


def test_losses_are_measured_and_resumed(tmp_path):
    """The implementations in JAX at a small size: rows that agree, and no cell is measured twice."""
    command = [sys.executable, "-m", "benchmarks.losses", "--dims=16", "--losses", "clip"]
    command += ["--repeats=1", f"--out={tmp_path}", "--names", "jaxcon", "dense jnp", "--pairs"]

    def run(*flags):
        root = Path(__file__).parents[1]
        done = subprocess.run(
            [*command, *flags], cwd=root, check=True, capture_output=True, text=True
        )
        return done.stdout

    assert "failed" not in run("32")
    first = json.loads((tmp_path / "losses.json").read_text())
    assert [row["name"] for row in first] == ["matmul", "jaxcon", "dense jnp"]
    assert all(row["ms"] > 0 for row in first)
    assert "clip         32" not in run("32", "48", "--resume")
    rows = json.loads((tmp_path / "losses.json").read_text())
    assert rows[:3] == first
    assert [row["pairs"] for row in rows[3:]] == [48, 48, 48]
    assert "| clip | 48 | 16 | dense jnp |" in (tmp_path / "losses.md").read_text()


def test_what_is_not_the_same_loss_is_refused():
    from benchmarks.losses import check_agreement

    row = {"loss": "clip", "pairs": 8, "dim": 4, "name": "a", "value": 2.0, "length": 1.0}
    check_agreement([row, row | {"name": "b", "length": 1.0005}])
    with pytest.raises(ValueError, match=r"value is 2\.1 in b and 2 in a"):
        check_agreement([row, row | {"name": "b", "value": 2.1}])


def test_the_parts_of_a_step_are_timed():
    from benchmarks.step import parts

    found = parts("digits", repeats=1)
    assert set(found) == {*("input", "views", "encoder", "loss", "optimizer", "step", "parameters")}
    assert all(value > 0 for value in found.values())


def test_the_memory_of_a_step_is_compiled_with_each_flag():
    command = [sys.executable, "-m", "benchmarks.fitting", "--encoders", "mlp", "--batch-size=4"]
    root, kept = (
        Path(__file__).parents[1],
        {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
    )
    done = subprocess.run(
        [*command, "--devices=2"], cwd=root, check=True, capture_output=True, text=True, env=kept
    )
    rows = [line.split(" | ")[1:3] for line in done.stdout.splitlines()]
    names = ["plain", "the whole encoder recomputed", "--remat", "--shard-state"]
    assert [name for name, _ in rows] == names
    given = {name: float(size.removesuffix(" MiB").replace(",", "")) for name, size in rows}
    assert given["--shard-state"] < 0.6 * given["plain"]


def test_a_whole_step_is_taken_apart_by_the_names_of_its_operations():
    command = (
        "from benchmarks.whole_steps import figures; from jaxcon.planning.memory import Memory; "
    )
    command += "import sys; found = figures(sys.stdin.read(), 'v5e:2x2', flop=197e9, "
    command += "memory=Memory(0, 0, 2**29, 0)); print(found)"
    names = {
        "jit(step)/jvp(views)/mul": 150_000,
        "jit(step)/jvp(Model)/encoder/Conv_0/conv": 300_000,
        "jit(step)/transpose(jvp(Model))/encoder/Conv_0/conv": 600_000,
        "jit(step)/transpose(jvp(DualEncoder))/text/encoder/Dense_0/dot": 900_000,
        "jit(step)/optimizer/mul": 1_500_000,
    }
    lines = [
        f'  %f.{n} = f32[8]{{0}} fusion(), kind=kLoop, calls=%c, metadata={{op_name="{name}"}}, '
        f'backend_config={{"estimated_cycles":"{cycles}"}}'
        for n, (name, cycles) in enumerate(names.items())
    ]
    lines.append("  %r = f32[256]{0} all-reduce(%f.0), to_apply=%add")
    program = "%c () -> f32[8] {\n  ROOT %z = f32[8]{0} constant(0)\n}\n"
    program += "ENTRY %main () -> f32[8] {\n" + "\n".join(lines) + "\n}\n"
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", command],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
        input=program,
    )
    found = ast.literal_eval(done.stdout)
    assert found["parts"] == {
        "views": 0.1,
        "images, forward": 0.2,
        "images, backward": 0.4,
        "texts, backward": 0.6,
        "optimizer": 1.0,
    }
    assert found["sent"] == {"all-reduce": [1, 0.0]}
    assert (found["ms"], found["share"], found["gib"]) == (2.3, 0.435, 0.5)
