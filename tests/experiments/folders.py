"""Small folders of pictures and runs in them that are begun and not trained."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from PIL import Image

from experiments.running import runner
from experiments.running.process import jit_once
from experiments.running.run import Run
from jaxcon.training.checkpoint import Checkpoints
from jaxcon.training.state import create_state


def draw(path: Path, seed: int, side: int = 8) -> None:
    """A picture of noise, the same for the same seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def pictures(root: Path, *, number: int = 40) -> Path:
    """Two classes, `number` pictures in all."""
    for i in range(number):
        draw(root / ("cat", "dog")[i % 2] / f"{i:02}.png", i)
    return root


def captioned(root: Path, *, number: int = 40) -> Path:
    """A table of captions of as many pictures."""
    words = ("red", "green", "blue", "small", "large")
    rows = ["image,caption"]
    for i in range(number):
        draw(root / f"{i:02}.png", i)
        rows.append(f"{i:02}.png,a {words[i % 5]} thing number {i}")
    (root / "captions.csv").write_text("\n".join(rows) + "\n")
    return root


def begin(main: Any, flags: list[str]) -> dict[str, Any]:
    """Runs a command up to where it would train; returns what it would train with."""
    given: dict[str, Any] = {}

    def stop(workdir: Any, *settings: Any, start: Any, **_: Any) -> Run:
        task = settings[-1]
        given.update(workdir=workdir, start=start, task=task)
        given.update(init=task.init, apply_fn=task.apply_fn)
        return Run({}, {}, finished=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "pretrain", stop)
        main([*flags, "--accelerator=cpu", "--num-devices=1"])
    return given


def begin_page(page: Any, folder: Path, *flags: str, **handed: Any) -> tuple[dict[str, Any], Any]:
    """Begins a run of a page of one's own; returns what it would train with, and its config.json."""
    given = begin(lambda given: page(*given, **handed), [f"--workdir={folder}", *flags])
    return given, json.loads((folder / "config.json").read_text())


def train(given: dict[str, Any], step: int = 7) -> Any:
    """A checkpoint of the run that was begun, of random weights of another seed; returns those."""
    variables = jax.device_get(jit_once(given["init"])(jax.random.key(5)))
    state = create_state(variables, optax.sgd(0.1), apply_fn=given["apply_fn"])
    with Checkpoints(given["workdir"].checkpoints) as checkpoints:
        checkpoints.save(step, state)
    return variables


def content(folder: Path) -> dict[str, str]:
    """A digest of every file of a folder, by path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
