"""The main job, short: from an empty folder to a report, resumed, finished, refused."""

import contextlib
import io
import json
import re
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import simclr
from jaxcon import plots
from jaxcon.data.sources import load
from jaxcon.evaluation.knn import knn_accuracy
from jaxcon.training.checkpoint import load_variables
from jaxcon.training.metrics import read_metrics
from tests.experiments.commands import end_alike

ORDER = ("training mlp", "evaluating", "raw pixels", "Collapse check", "drawing", "report: ")
SHORT = ["--epochs=2", "--batch-size=128", "--accelerator=cpu", "--num-devices=1"]
SHORT += ["--evaluate-every=0.5"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        simclr.main([*SHORT, f"--workdir={folder}"])
    return folder, said.getvalue()


@pytest.fixture(scope="module")
def workdir(run):
    return run[0]


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
        "times.json",
    }
    figures = {path.name for path in (workdir / "figures").iterdir()}
    assert figures == {"loss.png", "scores.png", "similarity.png", "embedding.png"}
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


def test_it_says_what_will_be_trained_before_it_trains_and_the_scores_before_it_draws(run):
    lines = [line for line in run[1].splitlines() if line]
    assert lines[0].startswith("found 1,797 images of 10 classes")
    assert lines[1].startswith("training mlp with a projection head, ")
    for words in ("on 1,259 images of 8 x 8 pixels", "18 steps of 128, 2 epochs", "1 CPU device"):
        assert words in lines[1]
    order = [next(i for i, line in enumerate(lines) if words in line) for words in ORDER]
    assert order == sorted(order)
    assert lines[-1] == f"report: {run[0] / 'report.html'}"


def test_the_page_tells_sizes_time_device_versions_and_the_warm_up(workdir):
    page = (workdir / "report.html").read_text()
    assert "<h1>SimCLR on digits</h1>" in page
    facts = dict(re.findall(r"<dt>(\w+)</dt><dd>([^<]*)</dd>", page))
    assert facts["Data"].startswith("1,259 training, 179 validation and 359 test images of 8 x 8")
    assert facts["Data"].endswith("10 classes")
    learned = sum(leaf.size for leaf in jax.tree.leaves(load_variables(workdir)["params"]))
    assert facts["Network"] == f"mlp with a projection head, {learned:,} parameters"
    assert "the learning rate rises over 2 steps" in facts["Training"]  # 0.2 epochs of 9
    assert re.search(r"^[\d.]+ s of training, [\d,]+ images/s", facts["Time"])
    assert facts["Device"].startswith("1 CPU device")
    for name in ("jaxcon 0", "jax 0", "Python 3"):
        assert name in facts["Software"]


def test_the_page_shows_inputs_and_neighbours_of_every_part_of_the_classes(workdir):
    page = (workdir / "report.html").read_text()
    inputs, neighbours = re.findall(r'<figure><div class="columns">(.*?)</figure>', page, re.DOTALL)
    rows = re.findall(r"<tr>.*?</tr>", inputs, re.DOTALL)
    assert [row.count("<img") for row in rows] == [8, 8, 8]
    names = re.findall(r"<span>(\d)</span>", rows[0])
    assert len(set(names)) == 8  # of ten classes: an image each
    rows = re.findall(r"<tr>.*?</tr>", neighbours, re.DOTALL)
    assert [row.count("<img") for row in rows] == [6] * 8
    assert len({re.findall(r"<span>(\d)</span>", row)[0] for row in rows}) == 8
    for row in rows:  # framed: those of the query's class, the query aside
        query, *others = re.findall(r"<span>(\d)</span>", row)
        framed = ["framed" in kinds for kinds in re.findall(r'<img class="([^"]*)"', row)]
        assert framed == [False, *(other == query for other in others)]


def test_the_verdict_is_of_all_test_images_and_kept_with_the_scores(workdir):
    notes = json.loads((workdir / "results.json").read_text())["notes"]
    assert notes[0].startswith("Collapse check on all 359 test images. ")
    assert f"<p>{notes[0]}</p>" in (workdir / "report.html").read_text()


def test_the_page_has_the_curves_of_the_scores_while_it_trained(workdir):
    rows = [row for row in read_metrics(workdir / "metrics.jsonl") if "knn" in row]
    assert [row["step"] for row in rows] == [3, 7, 11, 15, 17]  # 9 steps in an epoch
    assert all(0.5 < row["knn"] <= 1 and row["uniformity"] < 0 < row["alignment"] for row in rows)
    assert all(1 <= row["effective_rank"] < 128 for row in rows)
    (caption,) = re.findall(r"Scores while it trained[^<]*", (workdir / "report.html").read_text())[
        -1:
    ]
    assert f"kNN accuracy {rows[0]['knn']:.3g} to {rows[-1]['knn']:.3g}" in caption
    assert "classifies 128 validation images by the features of 384 training images" in caption
    assert "embeddings of two views of 64 validation images" in caption


def test_a_finished_run_says_so_and_shows_its_table(workdir, capsys):
    simclr.main([*SHORT, f"--workdir={workdir}"])
    out = capsys.readouterr().out
    assert out.startswith(f"this run is finished: {workdir}")
    assert "trained encoder" in out
    assert "Collapse check on all 359 test images" in out


@pytest.mark.slow
def test_a_figure_that_fails_costs_a_line_and_a_page_that_is_missing_is_drawn_again(
    run, tmp_path, capsys, monkeypatch
):
    def fail(*_, **__):
        raise ValueError("no such\nglyph")

    workdir = shutil.copytree(run[0], tmp_path / "run")
    scores = (workdir / "results.json").read_bytes()
    (workdir / "report.html").unlink()
    monkeypatch.setattr(plots, "loss_curve", fail)
    simclr.main([*SHORT, f"--workdir={workdir}"])
    out = capsys.readouterr().out
    said = "The figure loss is missing: ValueError, no such glyph."
    assert out.index("trained encoder") < out.index(said)
    assert (workdir / "results.json").read_bytes() == scores
    page = (workdir / "report.html").read_text()
    assert f"<p>{said}</p>" in page
    assert page.count("<figure>") == (run[0] / "report.html").read_text().count("<figure>") - 1


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
    assert "\nresumed at step" in said


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
    assert "no labels" in capsys.readouterr().out
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<table>" not in page
    assert "nearest neighbours among the other test images" in page
    assert json.loads((tmp_path / "run" / "config.json").read_text())["encoder"] == "patch_convnet"
