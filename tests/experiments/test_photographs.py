"""The commands on a folder of photographs of all sizes, from end to end, as a user types them."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcon.training.metrics import read_metrics

pytestmark = pytest.mark.slow
NUMBER = 500
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """JPEGs of 300 to 800 pixels in two folders: parts of the photographs of scikit-learn."""
    from sklearn.datasets import load_sample_images

    root = tmp_path_factory.mktemp("photographs")
    whole = [Image.fromarray(image) for image in load_sample_images().images]
    rng, rows = np.random.default_rng(0), []
    for number in range(NUMBER):
        kind = number % 2
        width, height = (int(side * rng.uniform(0.4, 0.8)) for side in whole[kind].size)
        left, top = (
            int(rng.integers(0, total - part))
            for total, part in zip(whole[kind].size, (width, height), strict=True)
        )
        part = whole[kind].crop((left, top, left + width, top + height))
        size = tuple(int(side) for side in rng.integers(300, 801, 2))
        path = root / ("temple", "flower")[kind] / f"{number:03}.jpg"
        path.parent.mkdir(exist_ok=True)
        part.rotate(rng.uniform(-10, 10)).resize(size).save(path, quality=90)
        rows.append((path.relative_to(root), f"a {path.parent.name} from the {number % 7} side"))
    with (root / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])
    return root


@pytest.mark.parametrize(
    ("name", "score"), [("simclr", "knn"), ("barlow_twins", "knn"), ("clip", "recall_at_1")]
)
def test_a_run_on_photographs(photographs, tmp_path, name, score):
    command = [sys.executable, "-m", f"experiments.{name}", f"--dataset=folder:{photographs}"]
    command += ["--image-size=96", "--data-workers=2", "--epochs=2", "--evaluate-every=1"]
    command += ["--encoder=mlp", f"--workdir={tmp_path}", "--accelerator=cpu"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"found {NUMBER} images" in done.stdout
    assert "read at 96 x 96 pixels" in done.stdout
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["preprocessing"]["zoom"] == 0.875
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row[score] for row in rows if score in row]
    assert {"effective_rank", "alignment", "uniformity", "input_wait"} <= rows[-1].keys()
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "as the encoder sees" in page or "two views of each" in page
    assert "Scores while it trained" in page
