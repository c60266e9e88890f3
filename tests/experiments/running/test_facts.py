"""A run in words, before and after."""

from pathlib import Path

import jax
import pytest

from experiments.running.facts import Setup, announce, dataset_title, facts
from experiments.running.plan import Plan
from jaxcon.training.clock import Clock

NOWHERE = Path("no-such-file")
PLAN = Plan(examples=1338, batch_size=128, epochs=60, warmup_epochs=4.0)


def setup(**changes):
    settings = {
        "encoder": "patch_convnet",
        "beside": "a projection head",
        "parameters": 386_496,
        "image_shape": (64, 64, 3),
        "images": (1338, 191, 382),
        "with_what": "10 classes",
        "plan": PLAN,
        "devices": jax.devices("cpu")[:1],
    }
    return Setup(**{**settings, **changes})


def test_what_will_be_trained_is_one_line():
    (line,) = announce(setup())
    assert line.startswith(
        "training patch_convnet with a projection head, 386,496 parameters, on 1,338 images of "
        "64 x 64 pixels: 600 steps of 128, 60 epochs, on 1 CPU device ("
    )


@pytest.mark.parametrize(
    ("encoder", "side", "warned"),
    [("convnet", 64, True), ("resnet18", 32, True), ("convnet", 8, False), ("mlp", 64, False)],
)
def test_what_is_slow_on_a_cpu_is_told_before_it_is_waited_for(encoder, side, warned):
    lines = announce(setup(encoder=encoder, image_shape=(side, side, 3)))
    assert any("--encoder=patch_convnet" in line for line in lines) == warned


def test_the_warm_up_is_a_number_of_steps():
    assert facts(setup(), NOWHERE)["Training"] == (
        "600 steps of 128, 60 epochs; the learning rate rises over 40 steps"
    )


def test_time_is_that_of_all_sessions(tmp_path, monkeypatch):
    now = iter([0.0, 10.0, 60.0, 100.0, 130.0, 200.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    for start, stop in ((0, 11), (10, 21)):
        clock = Clock(tmp_path / "times.json", start=start)
        clock.tick(start + 1)
        clock.tick(stop)
        clock.save()
    # 60 and 100 s, of which the first steps took 10 and 30; 20 steps of 128 in the other 120
    assert facts(setup(), tmp_path / "times.json")["Time"] == (
        "2 min 40 s of training in 2 sessions, 21 images/s (compiling and the first step: 30.0 s)"
    )
    assert facts(setup(), NOWHERE)["Time"] == "not recorded"


@pytest.mark.parametrize(
    ("dataset", "title"),
    [
        ("digits", "digits"),
        ("folder:/data/my birds/", "my birds"),
        ("folder:birds", "birds"),
        ("folder:.", "here"),
        ("folder:/", "images"),
    ],
)
def test_a_heading_names_a_folder_and_not_where_it_lies(dataset, title, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert dataset_title(dataset) == title
