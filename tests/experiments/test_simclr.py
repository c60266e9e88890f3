"""The main job, short: from an empty folder to a report, resumed, finished, refused."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import simclr
from jaxcon.data.sources import load
from jaxcon.evaluation.knn import knn_accuracy
from jaxcon.training.loop import read_metrics
from tests.experiments.commands import end_alike

SHORT = ["--epochs=2", "--batch-size=128", "--accelerator=cpu", "--num-devices=1"]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    simclr.main([*SHORT, f"--workdir={folder}"])
    return folder


def test_a_run_leaves_everything_in_its_folder(workdir):
    names = {path.name for path in workdir.iterdir()}
    assert names == {
        "config.json",
        "checkpoints",
        "events",
        "figures",
        "metrics.jsonl",
        "report.html",
        "results.json",
    }
    figures = {path.name for path in (workdir / "figures").iterdir()}
    assert figures == {"loss.png", "similarity.png", "embedding.png"}
    assert json.loads((workdir / "config.json").read_text())["temperature"] == 0.7
    rows = read_metrics(workdir / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(2 * (1259 // 128)))
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_the_table_compares_three_kinds_of_features(workdir):
    scores = json.loads((workdir / "results.json").read_text())["scores"]
    assert list(scores) == ["raw pixels", "untrained encoder", "trained encoder"]
    for row in scores.values():
        assert list(row) == ["linear", "5 labels", "1 label", "kNN"]
        assert 0.5 < row["linear"] <= 1
        assert row["1 label"][0] < row["5 labels"][0] < row["linear"]
    assert scores["raw pixels"]["linear"] == pytest.approx(0.97, abs=0.02)


def test_a_finished_run_says_so_and_shows_its_table(workdir, capsys):
    simclr.main([*SHORT, f"--workdir={workdir}"])
    out = capsys.readouterr().out
    assert out.startswith(f"this run is finished: {workdir}")
    assert "trained encoder" in out


def test_another_configuration_is_refused_with_the_fields(workdir, capsys):
    with pytest.raises(SystemExit) as ended:
        simclr.main([*SHORT, f"--workdir={workdir}", "--temperature=0.5"])
    assert ended.value.code == 2
    assert "temperature was 0.7, is 0.5" in capsys.readouterr().err


def test_its_encoder_is_loaded_as_the_readme_says(workdir):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (block,) = re.findall(r"```python\n([^`]*runs/simclr-digits[^`]*)```", readme)
    block = block.replace("runs/simclr-digits", str(workdir))
    digits, features = load("digits"), {}
    for name in ("train", "test"):
        names = {"images": getattr(digits, name).images}
        exec(block, names)
        features[name] = np.asarray(names["features"])
    scores = json.loads((workdir / "results.json").read_text())["scores"]["trained encoder"]
    assert features["test"].shape == (359, 512)
    knn = knn_accuracy(features["train"], digits.train.labels, features["test"], digits.test.labels)
    assert knn == pytest.approx(scores["kNN"], abs=1 / 359)


def command(folder) -> list[str]:
    flags = [*SHORT, "--epochs=4", "--checkpoint-every=5", f"--workdir={folder}"]
    return [sys.executable, "-m", "experiments.simclr", *flags]


@pytest.mark.slow
def test_a_killed_run_ends_like_an_uninterrupted_one(tmp_path):
    step, said = end_alike(command, tmp_path)
    assert step == 4 * (1259 // 128)
    assert said.startswith("resumed at step")


@pytest.mark.slow
def test_a_folder_without_classes_shows_neighbours(tmp_path, capsys):
    from PIL import Image

    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(60):
        pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    flags = [f"--dataset=folder:{tmp_path / 'images'}", "--epochs=1", "--batch-size=16"]
    simclr.main([*flags, f"--workdir={tmp_path / 'run'}"])
    assert (tmp_path / "run" / "figures" / "neighbours.png").exists()
    assert "no labels" in capsys.readouterr().out
    assert "<table>" not in (tmp_path / "run" / "report.html").read_text()
