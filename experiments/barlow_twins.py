"""Barlow Twins: features of two views agree, and no two features tell the same. No negatives.

    python -m experiments.barlow_twins
    python -m experiments.barlow_twins --loss=vicreg
    python -m experiments.barlow_twins --num-devices=2

Each takes a minute on digits (2 CPU cores). On the 359 test images, mean of seeds 0, 1, 2, with the
recipe chosen on validation images; other rounding, of one core say, changes a seed's by an image or
two:

    --loss               linear    5 labels a class   1 label a class   kNN
    barlow_twins         99.5 %   97.2 %             89.2 %            99.4 %
    vicreg               99.7 %   97.5 %             90.0 %            99.6 %
    sample_correlation   99.5 %   96.4 %             86.0 %            99.4 %

The recipes of photos are SimCLR's; with these losses they are untried.

The statistics of the batch (means, variances, correlations) are those of all devices together; those
of each device alone would make another loss of every number of devices.

References: Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, 2021;
Bardes et al., VICReg: Variance-Invariance-Covariance Regularization, 2021.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import jax.numpy as jnp
import numpy as np

from experiments.images.page import Pairs
from experiments.images.recipes import Images, Recipe, recipe_for
from experiments.images.two_views import Method, Objective, check_options, fill_in, run
from experiments.running.figures import Drawing, matrices
from experiments.running.options import FloatOfLoss, Machine, Training, check_range, flag, parse
from experiments.running.process import jit_once, quiet_libraries
from jaxcon import report
from jaxcon.losses import barlow_twins_loss, sample_correlation_loss, vicreg_loss

LOSSES = {
    "barlow_twins": barlow_twins_loss,
    "vicreg": vicreg_loss,
    "sample_correlation": sample_correlation_loss,
}
# What each loss can be given, and what it is given; for the first two as in their papers.
WEIGHTS = {
    "barlow_twins": {"off_diagonal_weight": 5e-3},
    "vicreg": {"invariance": 25.0, "variance": 25.0, "covariance": 1.0},
    "sample_correlation": {"off_diagonal_weight": 5e-3},
}
# What they are called in a heading.
TITLES = {
    "barlow_twins": "Barlow Twins",
    "vicreg": "VICReg",
    "sample_correlation": "Sample correlation",
}
# These losses have none; it decides only what the collapse check says of a loss.
TEMPERATURE = 0.1


@dataclasses.dataclass(frozen=True)
class Loss:
    """What is minimized, with the statistics of the global batch."""

    loss: Literal["barlow_twins", "vicreg", "sample_correlation"] = "barlow_twins"
    """Correlations of features; the three terms of VICReg; or correlations of samples, for which
    the projection should be as wide as the batch is large."""
    off_diagonal_weight: FloatOfLoss = None
    """barlow_twins, sample_correlation: of the entries beside the diagonal. Default: 0.005."""
    invariance: FloatOfLoss = None
    """vicreg: of the distance between views. Default: 25."""
    variance: FloatOfLoss = None
    """vicreg: of the hinge that keeps features from shrinking. Default: 25."""
    covariance: FloatOfLoss = None
    """vicreg: of the covariances between features. Default: 1."""


@dataclasses.dataclass(frozen=True)
class BarlowTwins:
    """Pre-train an encoder by a correlation loss, evaluate its frozen features, write a report.

    Running the same command again resumes, or shows the table of a finished run.

    Options without a value here take it from the recipe of the dataset, and config.json in the
    workdir tells what they were:

    digits: mlp, 400 epochs of 256 images a step, adamw at 0.01

    photos, from 5,000 on: resnet18, 200 epochs of 512, lars at 1.0

    fewer photos: patch_convnet, 60 epochs of 128, adamw at 0.002
    """

    images: Images = dataclasses.field(
        default_factory=functools.partial(Images, projection_dim=256)
    )
    loss: Loss = dataclasses.field(default_factory=Loss)
    training: Training = dataclasses.field(default_factory=Training)
    machine: Machine = dataclasses.field(default_factory=Machine)


def resolve(config: BarlowTwins, examples: int) -> tuple[BarlowTwins, Recipe]:
    """Return the configuration with the recipe of its dataset and its loss filled in."""
    recipe = recipe_for(config.images.dataset, examples)
    return fill_in(config, recipe, examples, WEIGHTS[config.loss.loss]), recipe


def check(config: BarlowTwins) -> None:
    """Raise a ValueError for the first option outside of its range, or without a meaning."""
    check_options(config)
    check_range(config.loss, "variance", low=0)
    check_range(
        config.loss, "off_diagonal_weight", "invariance", "covariance", low=0, open_low=False
    )
    for name, value in given_weights(config.loss).items():
        if name not in WEIGHTS[config.loss.loss]:
            raise ValueError(
                f"{flag(name)}={value}: --loss={config.loss.loss} has none; leave it out"
            )


def given_weights(loss: Loss) -> dict[str, float]:
    """Return the weights that have a value: those that were typed, or, once filled in, all."""
    return {k: v for k, v in dataclasses.asdict(loss).items() if k != "loss" and v is not None}


def objective(config: BarlowTwins) -> Objective:
    """Return the loss that is asked for; embeddings of zeros, collapsed for sure, are its chance."""
    loss = functools.partial(LOSSES[config.loss.loss], **given_weights(config.loss))
    zeros = jnp.zeros((config.training.batch_size or 0, config.images.projection_dim))
    return Objective(
        loss=loss,
        chance=float(jit_once(loss)(zeros, zeros)),
        candidates=None,
        temperature=TEMPERATURE,
        describe=describe,
    )


def cross_correlation(z1: np.ndarray, z2: np.ndarray) -> np.ndarray:
    """Return the correlations of each feature of one view with each of the other: `[dim, dim]`.

    >>> z = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> cross_correlation(z, z[:, ::-1]).round(2).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """

    def standardize(z: np.ndarray) -> np.ndarray:
        z = z - z.mean(axis=0, dtype=np.float64)
        # Not the loss's 1e-5 under a root: an untrained encoder's features are smaller than that.
        return z / np.maximum(z.std(axis=0), 1e-12)

    return standardize(z1).T @ standardize(z2) / len(z1)  # (d, n) . (n, d)


def diagonal_and_rest(c: np.ndarray) -> tuple[float, float]:
    """Return the mean of the diagonal, and the root of the mean square beside it.

    >>> diagonal_and_rest(np.eye(3))
    (1.0, 0.0)
    """
    rest = c[~np.eye(len(c), dtype=bool)]
    return float(np.diagonal(c).mean()), float(np.sqrt((rest**2).mean()))


def describe(folder: Path, embeddings: Mapping[str, Pairs]) -> tuple[list[Drawing], list[str]]:
    """Tell the cross-correlations before and after training in numbers, and how to draw them."""
    correlations = {when: cross_correlation(*pairs) for when, pairs in embeddings.items()}
    told = {w: "{:.2f} and {:.2f}".format(*diagonal_and_rest(c)) for w, c in correlations.items()}
    rows, dim = embeddings["after"][0].shape
    notes = [
        f"The loss that the check speaks of is clip_loss at temperature {TEMPERATURE}: it has a "
        "level of chance whatever the embeddings were trained with.",
        f"Correlations of the {dim} features between two views of {rows:,} test images, mean of the "
        f"diagonal and root mean square beside it: {told['after']}; before training "
        f"{told['before']}. Barlow Twins aims at 1 and 0.",
    ]

    def draw() -> report.Figure:
        path = folder / "correlation.png"
        labels = {"rows": "feature of one view", "columns": "feature of another view"}
        matrices(path, correlations, **labels, label="correlation")
        return report.Figure(
            path,
            f"Correlations of the {dim} embedded features of a view (rows) with those of another "
            f"(columns) over {rows:,} test images: agreement on the diagonal, redundancy beside it.",
        )

    return [("correlation", draw)], notes


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment of a command line."""
    quiet_libraries()
    method = Method(
        command="barlow_twins",
        title=lambda config: TITLES[config.loss.loss],
        check=check,
        resolve=resolve,
        objective=objective,
        folder=lambda config: config.loss.loss,
    )
    run(parse(BarlowTwins, program="barlow_twins", arguments=arguments), method)


if __name__ == "__main__":
    main()
