"""`--evaluate-every`: scores at the same steps in any run, which change nothing that is learned."""

import functools
import json
import os
import shutil
import socket
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments.images import progress
from experiments.images.progress import make_evaluate
from experiments.running.examples import make_views
from experiments.running.progress import score_curves, spreading
from jaxcon.augment import gaussian_noise
from jaxcon.data.splits import Dataset, Split
from jaxcon.diagnostics import collapse_report
from jaxcon.training.devices import make_mesh, replicate
from jaxcon.training.metrics import read_metrics
from jaxcon.training.workdir import Workdir
from tests.experiments.trajectories import STEPS, train

EVERY = "--evaluate-every=0.7"  # of 3 steps: 2
SPREAD = {"effective_rank", "alignment", "uniformity"}
SCORES = {"simclr": {"knn", *SPREAD}, "clip": {"recall_at_1", *SPREAD}}


def scores(folder):
    rows = read_metrics(folder / "metrics.jsonl")
    names = {"knn", "recall_at_1", *SPREAD}
    return {
        row["step"]: {k: row[k] for k in names & row.keys()} for row in rows if names & row.keys()
    }


@pytest.fixture(scope="module", params=["simclr", pytest.param("clip", marks=pytest.mark.slow)])
def whole(request, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / request.param
    return request.param, folder, train(request.param, folder, data, EVERY, "--num-devices=1")


def test_scores_are_written_at_fixed_steps_and_at_the_last(whole):
    name, folder, trained = whole
    found = scores(folder)
    assert list(found) == [1, 3, 5]
    assert len(trained.losses) == STEPS
    for row in found.values():
        assert row.keys() == SCORES[name]
        assert all(np.isfinite(value) for value in row.values())
        assert row["alignment"] > 0 > row["uniformity"]
    (events,) = (folder / "events").iterdir()
    for score in SCORES[name]:
        assert score.encode() in events.read_bytes()
    assert "evaluate_every" not in json.loads((folder / "config.json").read_text())


@pytest.mark.slow
def test_they_change_nothing_that_is_learned(whole, data, tmp_path):
    name, _, trained = whole
    without = train(name, tmp_path / "run", data, "--num-devices=1")
    assert without.losses == trained.losses
    for a, b in zip(*(jax.tree.leaves(run.variables) for run in (trained, without)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_resumed_run_has_those_of_an_uninterrupted_one(whole, data, tmp_path):
    name, folder, _ = whole
    flags = (EVERY, "--num-devices=1", "--checkpoint-every=3")
    train(name, tmp_path / "run", data, *flags, stop=4)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")  # of a kill; step 3 is left
    train(name, tmp_path / "run", data, *flags)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == (
        folder / "metrics.jsonl"
    ).read_text()


@pytest.mark.parametrize("flags", [(), pytest.param(("--shard-state",), marks=pytest.mark.slow)])
def test_devices_share_the_images(whole, data, tmp_path, flags):
    name, folder, _ = whole
    train(name, tmp_path / "run", data, EVERY, "--num-devices=2", *flags)
    found, expected = scores(tmp_path / "run"), scores(folder)
    assert found.keys() == expected.keys()
    for step, row in expected.items():
        for score, value in row.items():
            # An image at the border of two classes may go to the other one.
            near = 0.5 if score in ("knn", "recall_at_1") else 1e-2 * max(1, abs(value))
            assert abs(found[step][score] - value) <= near


def dataset(*counts, classes=True):
    """Splits of random images in two classes, dark and bright."""
    rng, splits = np.random.default_rng(0), []
    for count in counts:
        labels = np.arange(count) % 2
        images = rng.integers(0, 128, (count, 4, 4, 1)) + 127 * labels[:, None, None, None]
        splits.append(Split(images.astype(np.uint8), labels if classes else None))
    return Dataset("toy", *splits, ("dark", "bright") if classes else None)


def encode(variables, images):
    """Features and embeddings that are the pixels, scaled."""
    rows = (images - 0.5).reshape(len(images), -1) * variables["params"]
    return rows, rows


def evaluated(data, scale=1.0, devices=2, between=10_000):
    """The scores of a state whose one parameter is a scale."""
    transform = functools.partial(gaussian_noise, std=0.1)
    mesh = make_mesh(jax.devices()[:devices])
    views = make_views(transform, [], None, seed=0)
    evaluate = make_evaluate(data, encode, views, between=between)(mesh)
    variables = {"params": replicate(np.float32(scale), mesh)}
    return evaluate(SimpleNamespace(variables=lambda average: variables))


def test_without_classes_there_is_no_knn():
    assert evaluated(dataset(30, 8, 8, classes=False)).keys() == SPREAD
    assert evaluated(dataset(30, 8, 8)).keys() == {"knn", *SPREAD}


def test_features_that_are_not_finite_are_no_error():
    found = evaluated(dataset(30, 8, 8), np.inf)
    assert found.keys() == {"knn", *SPREAD}
    assert all(np.isnan(value) for value in found.values())


def test_of_many_images_some_are_taken_from_everywhere(monkeypatch):
    data, seen = dataset(1000, 500, 0), []
    monkeypatch.setattr(progress, "MOST", (60, 20, 10))
    monkeypatch.setattr(progress, "knn_accuracy", lambda *given, **_: seen.append(given) or 0.5)
    assert evaluated(data)["knn"] == 0.5
    ((train_x, train_y, validation_x, validation_y),) = seen
    for features, labels, split in (
        (train_x, train_y, data.train),
        (validation_x, validation_y, data.validation),
    ):
        rows = np.arange(len(labels)) * len(split) // len(labels)
        np.testing.assert_array_equal(labels, split.labels[rows])
        pixels = split.images[rows].reshape(len(rows), -1)
        np.testing.assert_allclose(features, pixels / 255 - 0.5, atol=1e-6)
    assert (len(train_x), len(validation_x)) == (60, 20)
    assert (
        "20 validation images by the features of 60 training" in progress.told(data, 10_000)["knn"]
    )


def test_scores_are_of_no_more_images_than_a_tenth_of_the_time_allows():
    digits, photos = dataset(1259, 179, 0), dataset(200_000, 20_000, 0)
    assert progress.counts(digits, 1024) == (384, 128, 64)  # every epoch
    assert progress.counts(digits, 10 * 1024) == (1259, 179, 179)
    assert progress.counts(photos, 12_000) == (3_000, 1_500, 750)
    assert progress.counts(photos, 10**7) == (50_000, 10_000, 1_000)
    assert progress.counts(dataset(30, 8, 8), 8) == (30, 8, 8)


def test_without_validation_images_there_is_nothing_to_score():
    assert evaluated(dataset(30, 1, 8, classes=False)) == {}
    assert evaluated(dataset(30, 0, 8)) == {}


def test_the_measures_are_those_of_the_collapse_report():
    z1, z2 = np.random.default_rng(0).normal(size=(2, 30, 8)).astype(np.float32)
    report, found = collapse_report(z1, z2, temperature=0.1), spreading(z1, z2)
    assert found == {name: pytest.approx(getattr(report, name), rel=1e-5) for name in SPREAD}
    assert spreading(z1[:1], z2[:1]) == {}
    assert all(np.isnan(value) for value in spreading(z1 * np.inf, z2).values())


def test_curves_leave_out_what_was_not_finite_and_there_are_none_without_scores(tmp_path):
    workdir, path = Workdir(tmp_path, resumed=False), tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "loss": 1.0}\n')
    assert score_curves(workdir, 2, {}) == []
    rows = [{"step": s, "loss": 1.0, "knn": None if s == 1 else s / 10} for s in (1, 3, 5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ((name, drawing),) = score_curves(workdir, 2, {"knn": "Of 5 images.", "recall_at_1": "Not."})
    figure = drawing()
    assert name == "scores"
    assert figure.path.stat().st_size > 1000
    assert figure.caption.endswith(" to 0.5. Of 5 images.")


@pytest.mark.slow
def test_two_processes_have_the_scores_of_one_with_two_devices(tmp_path):
    flags = ["--epochs=2", "--evaluate-every=1", "--accelerator=cpu"]
    environ = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    together = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    command = [sys.executable, "-m", "experiments.simclr", *flags]
    processes = [
        subprocess.Popen(
            [*command, f"--workdir={tmp_path / 'two'}"],
            env=environ | together | {"JAX_PROCESS_ID": str(number)},
            stdout=subprocess.DEVNULL,
        )
        for number in range(2)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    alone = [*command, f"--workdir={tmp_path / 'one'}", "--num-devices=2"]
    subprocess.run(alone, env=environ, check=True, stdout=subprocess.DEVNULL)
    found, expected = (scores(tmp_path / name) for name in ("two", "one"))
    assert list(found) == list(expected) == [3, 7]
    for step, row in expected.items():
        assert found[step] == pytest.approx(row, abs=0.02)
