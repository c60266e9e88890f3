"""Every command of the README is run: here, or by the script or test named beside it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PYTHON = ".venv/bin/python"
# Where the commands are run that this file leaves out, and a text that must stand there.
ELSEWHERE = {
    "make simclr": (".ci/run", "make simclr"),
    "make test": (".ci/run", "make test"),
    "pip install .": (".ci/run", "install --quiet ."),
    "pip install '.[experiments]'": ("Makefile", "$(INSTALL) '.[experiments]'"),
    f"{PYTHON} -m experiments.simclr --dataset=cifar10": (
        "tests/data/test_cifar10.py",
        "test_simclr_trains_on_it_where_tensorflow_cannot_be_imported",
    ),
}
HELP = f"{PYTHON} -m experiments.simclr --help"
FOLDER = f"{PYTHON} -m experiments.simclr --dataset=folder:PATH"
GPU = f"{PYTHON} -m experiments.simclr --accelerator=gpu"
COLLAPSE = f"{PYTHON} -m experiments.collapse"


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def run(command: str, *more: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    arguments = command.split()
    assert arguments[0] == PYTHON
    done = subprocess.run(
        [sys.executable, *arguments[1:], *map(str, more)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def test_every_command_is_run_somewhere():
    assert set(commands()) == {*ELSEWHERE, HELP, FOLDER, GPU, COLLAPSE}
    for path, text in ELSEWHERE.values():
        assert text in (ROOT / path).read_text(), f"{path} does not run it any more"


def test_help():
    assert "--temperature" in run(HELP).stdout


@pytest.mark.slow  # .ci/run runs it
def test_a_folder_of_images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3), np.uint8)
    for i, image in enumerate(pixels):
        folder = tmp_path / "images" / f"class{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    command = FOLDER.replace("PATH", str(tmp_path / "images"))
    quick = ("--epochs=1", "--batch-size=8", "--encoder=mlp", "--num-devices=1")
    done = run(command, *quick, f"--workdir={tmp_path / 'run'}")
    assert done.stdout.startswith("found 40 images of 2 classes (class0, class1): 28 train, ")
    assert "1 label" in done.stdout
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there may be one")
def test_a_gpu_that_is_not_there(tmp_path):
    done = run(GPU, f"--workdir={tmp_path / 'run'}", code=2)
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow  # twelve programs to compile; .ci/run runs it
def test_collapse(tmp_path):
    done = run(COLLAPSE, "--steps=2", f"--output={tmp_path}")
    assert "+ uniformity" in done.stdout
    assert (tmp_path / "figures" / "collapse.svg").exists()
