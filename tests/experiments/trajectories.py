"""Commands that train for a few steps, to compare what comes of it."""

import contextlib
import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from experiments import barlow_twins, clip, simclr
from experiments.images import two_views
from experiments.images.recipes import DIGITS
from experiments.images.your_own import pretrain
from experiments.pairs import dual
from experiments.running import run
from experiments.running.encoders import ENCODERS, Entry
from jaxcon.augment import gaussian_noise
from jaxcon.encoders import ViT
from jaxcon.losses import ntxent_loss
from jaxcon.training import loop
from jaxcon.training.metrics import read_metrics
from jaxcon.training.sharded import state_sharding
from tests.experiments.folders import captioned, pictures

PAGES = {"simclr": simclr, "barlow_twins": barlow_twins, "clip": clip}
# What each command is also given, so that its loss is one over pairs.
LOSSES = {
    "simclr": (),
    "barlow_twins": ("--loss=sample_correlation",),
    "clip": (),
}
STEPS = 6  # two epochs of the 28 training images, 8 at a time
SMALL = Entry(functools.partial(ViT, dim=16, depth=1, heads=2))
NOISE = functools.partial(gaussian_noise, std=0.5)  # compiles in a moment
RECIPE = DIGITS._replace(transform=NOISE, colours=(NOISE, NOISE))


def folders(root: Path) -> dict[str, Path]:
    """Pictures with classes, and pictures with captions, by the command that learns from them."""
    return {"clip": captioned(root / "birds")} | dict.fromkeys(
        ("simclr", "barlow_twins"), pictures(root / "pets")
    )


class Trajectory:
    """The losses of a run, its variables after the last step, and whether devices had parts of them."""

    def __init__(self, losses: list[float], variables: Any, divided: bool) -> None:
        self.losses, self.variables, self.divided = losses, variables, divided

    def assert_close(self, other: "Trajectory") -> None:
        assert len(self.losses) == len(other.losses) == STEPS
        np.testing.assert_allclose(self.losses, other.losses, rtol=1e-4)
        ours, theirs = (jax.tree.leaves(run.variables) for run in (self, other))
        for a, b in zip(ours, theirs, strict=True):
            assert np.linalg.norm(a - b) <= 1e-4 * max(1e-2, float(np.linalg.norm(b)))


def train(name: str, folder: Any, data: Any, *flags: str, stop: int | None = None) -> Trajectory:
    """Runs a command without what follows training, to its end or until some step."""
    runs: list[Any] = []
    states: list[Any] = []

    def fit(*given: Any, **settings: Any) -> loop.Fit:
        ended = loop.fit(*given, **settings)
        states.append(ended.state)
        return ended

    with pytest.MonkeyPatch.context() as patch:
        for module in (two_views, dual):
            patch.setattr(module, "conclude", lambda workdir, run, **_: runs.append(run))
        for module in (simclr, barlow_twins):
            patch.setattr(module, "recipe_for", lambda *_: RECIPE)
        patch.setattr(clip, "Method", functools.partial(dual.Method, transform=NOISE))
        patch.setitem(simclr.TEMPERATURES, RECIPE, 0.5)
        patch.setitem(ENCODERS, "vit", SMALL)
        patch.setattr(run, "fit", fit)
        patch.setattr(run, "state_sharding", functools.partial(state_sharding, at_least=1))
        if stop is not None:
            until = contextlib.nullcontext(lambda step: step == stop)
            patch.setattr(loop, "stop_requested", lambda: until)
        common = [f"--dataset=folder:{data[name]}", f"--workdir={folder}", "--accelerator=cpu"]
        common += ["--epochs=2", "--batch-size=8", "--projection-dim=8"]
        # Adam divides gradients by their own size: of those that are 0 it leaves rounding alone.
        common += ["--optimizer=sgd", "--learning-rate=0.1"]
        PAGES[name].main([*common, *flags])
    losses = [row["loss"] for row in read_metrics(folder / "metrics.jsonl")]
    divided = any(not leaf.is_fully_replicated for leaf in jax.tree.leaves(states))
    return Trajectory(losses, runs[0].after if runs else None, divided)


class Own(nn.Module):
    """An encoder that is not jaxcon's; with statistics of the batch or without."""

    groups: int = 2

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(4, (3, 3))(images)
        norm = nn.GroupNorm(self.groups) if self.groups else nn.BatchNorm(not train)
        return nn.relu(norm(x)).reshape(len(x), -1)


def train_own(folder: Any, data: Any, encoder: Any, *flags: str) -> Trajectory:
    """Runs a page that passes in its loss and its encoder."""

    def main(arguments: list[str]) -> None:
        pretrain("own", loss=ntxent_loss, encoder=encoder, transform=NOISE, arguments=arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PAGES, "simclr", SimpleNamespace(main=main))
        return train("simclr", folder, data, *flags)
