"""Every encoder, optimizer and precision of the command line, for a few steps on a folder."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from experiments import simclr
from jaxcon.training.metrics import read_metrics

pytestmark = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty photos of 16 x 16 pixels in two classes: dark and bright."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(40):
        name = ("dark", "bright")[number % 2]
        pixels = rng.integers(0, 128, (16, 16, 3)) + 127 * (number % 2)
        (root / name).mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize(
    "flags",
    [
        ("--encoder=mlp", "--optimizer=lars", "--precision=bf16", "--ema=0.9", "--clip-norm=1"),
        ("--encoder=convnet", "--precision=bf16"),
        ("--encoder=resnet18", "--optimizer=lars"),
        ("--encoder=resnet50", "--optimizer=sgd", "--image-size=8"),
        ("--encoder=vit", "--ema=0.9", "--num-devices=2"),
    ],
    ids=" ".join,
)
def test_a_choice_trains_and_is_evaluated(folder, tmp_path, flags):
    common = [f"--dataset=folder:{folder}", "--epochs=2", "--batch-size=8", "--accelerator=cpu"]
    devices = [] if any("num-devices" in flag for flag in flags) else ["--num-devices=1"]
    simclr.main([*common, *devices, *flags, f"--workdir={tmp_path / 'run'}"])
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(6))  # 28 training images
    assert all(math.isfinite(row["loss"]) and row["skipped"] == 0 for row in rows)
    assert len({row["loss"] for row in rows}) == 6
    scores = json.loads((tmp_path / "run" / "results.json").read_text())["scores"]
    assert 0.5 <= scores["trained encoder"]["linear"] <= 1
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
