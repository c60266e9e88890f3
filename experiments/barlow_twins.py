"""Barlow Twins: features of two views agree, and no two features are redundant. No negatives.

    python -m experiments.barlow_twins
    python -m experiments.barlow_twins --loss=vicreg
    python -m experiments.barlow_twins --num-devices=2

Each takes a minute on digits (2 CPU cores). On the 359 test images, mean of seeds 0, 1, 2, with the
recipe chosen on validation images; other rounding, as on one core, changes the result of a seed by an
image or two:

    --loss               linear    5 labels a class   1 label a class   kNN
    barlow_twins         99.5 %   97.2 %             89.2 %            99.4 %
    vicreg               99.7 %   97.5 %             90.0 %            99.6 %
    sample_correlation   99.5 %   96.4 %             86.0 %            99.4 %

The recipes for photos are SimCLR's, but for the colours of photographs that are cropped from files:
those are of the paper, other ones for each view. They are untested with these losses.

The statistics of the batch (means, variances, correlations) are computed over all devices; if each
device used its own, the loss would depend on the number of devices.

References: Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, 2021;
Bardes et al., VICReg: Variance-Invariance-Covariance Regularization, 2021.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from experiments.images import two_views
from experiments.images.recipes import Images, Recipe, recipe_for
from experiments.images.redundancy import describe
from experiments.running.handed import loss_of_zeros
from experiments.running.memory import of_pairs, refuse_of_pairs
from experiments.running.options import (
    FloatOfLoss,
    Machine,
    PrecisionOfLoss,
    Training,
    check_range,
    check_taken,
    parse,
)
from experiments.running.precision import PRECISIONS, loss_precision
from experiments.running.process import quiet_libraries
from jaxcon.augment import BARLOW_TWINS_COLOURS
from jaxcon.losses import barlow_twins_loss, sample_correlation_loss, vicreg_loss

TEMPERATURE = 0.1  # the losses have none; it only affects what the collapse check says


class Kind(NamedTuple):
    """A loss: its name in a heading, and the weights that it takes, with their defaults.

    `pairwise`: whether it multiplies rows with rows, in a precision and in tiles to choose.
    """

    title: str
    loss: Callable[..., Any]
    weights: Mapping[str, float]
    pairwise: bool = False


# The weights of the first two are from their papers.
KINDS = {
    "barlow_twins": Kind("Barlow Twins", barlow_twins_loss, {"off_diagonal_weight": 5e-3}),
    "vicreg": Kind(
        "VICReg", vicreg_loss, {"invariance": 25.0, "variance": 25.0, "covariance": 1.0}
    ),
    "sample_correlation": Kind(
        "Sample correlation", sample_correlation_loss, {"off_diagonal_weight": 5e-3}, pairwise=True
    ),
}


@dataclasses.dataclass(frozen=True)
class Loss:
    """What is minimized, with the statistics of the global batch."""

    loss: Literal["barlow_twins", "vicreg", "sample_correlation"] = "barlow_twins"
    """Correlations of features; the three terms of VICReg; or correlations of samples, for which
    the projection should be as wide as the batch is large."""
    off_diagonal_weight: FloatOfLoss = None
    """barlow_twins, sample_correlation: weight of the off-diagonal entries. Default: 0.005."""
    invariance: FloatOfLoss = None
    """vicreg: weight of the distance between views. Default: 25."""
    variance: FloatOfLoss = None
    """vicreg: weight of the hinge that keeps features from shrinking. Default: 25."""
    covariance: FloatOfLoss = None
    """vicreg: weight of the covariances between features. Default: 1."""
    loss_precision: PrecisionOfLoss = None
    """sample_correlation: precision of the products between embeddings: highest is float32, high
    three bfloat16 passes on a TPU and TF32 on an NVIDIA GPU. Default: highest; with
    --precision=bf16, bf16."""


@dataclasses.dataclass(frozen=True)
class BarlowTwins:
    """Pre-train an encoder by a correlation loss, evaluate its frozen features, write a report.

    Running the same command again resumes, or shows the table of a finished run.

    Options without a value here take it from the recipe of the dataset, and config.json in the
    workdir says what they were:

    digits: mlp, 400 epochs of 256 images a step, adamw at 0.01

    photos up to 96 pixels, from 5,000 on: resnet18, 200 epochs of 512, lars at 1.0

    larger ones, from 5,000 on: resnet50, 100 epochs of 1,024, lars at 1.2; a vit: 300 epochs of
    1,024, adamw at 0.0006

    fewer photos: patch_convnet, 60 epochs of 128, adamw at 0.002
    """

    images: Images = dataclasses.field(
        default_factory=functools.partial(Images, projection_dim=256)
    )
    loss: Loss = dataclasses.field(default_factory=Loss)
    training: Training = dataclasses.field(default_factory=Training)
    machine: Machine = dataclasses.field(default_factory=Machine)


def resolve(config: BarlowTwins, examples: int, side: int) -> tuple[BarlowTwins, Recipe]:
    """Returns the configuration with the recipe of its dataset and its loss filled in."""
    recipe = recipe_for(config.images.dataset, examples, side, config.images.encoder)
    recipe = recipe._replace(colours=BARLOW_TWINS_COLOURS)
    kind = KINDS[config.loss.loss]
    loss: dict[str, Any] = dict(kind.weights)
    if kind.pairwise:
        loss["loss_precision"] = loss_precision(config.training.precision)
    return two_views.fill_in(config, recipe, examples, loss), recipe


def check(config: BarlowTwins) -> None:
    """Raises a ValueError for the first option that is out of range, or that the loss does not take."""
    two_views.check_options(config)
    check_range(config.loss, "variance", low=0)
    check_range(
        config.loss, "off_diagonal_weight", "invariance", "covariance", low=0, open_low=False
    )
    kind = KINDS[config.loss.loss]
    check_taken(config.loss, [*kind.weights, *(["loss_precision"] if kind.pairwise else [])])
    if not kind.pairwise:
        refuse_of_pairs(config.machine, f"--loss={config.loss.loss} has none; leave it out")


def objective(config: BarlowTwins) -> two_views.Objective:
    """Returns the chosen loss; its chance level is that of zeros, embeddings that surely collapsed."""
    kind = KINDS[config.loss.loss]
    settings = {name: getattr(config.loss, name) for name in kind.weights}
    if kind.pairwise:
        assert config.loss.loss_precision is not None
        settings["precision"] = PRECISIONS[config.loss.loss_precision]
        settings |= of_pairs(config.machine)
    loss = functools.partial(kind.loss, **settings)
    return two_views.Objective(
        loss=loss,
        chance=loss_of_zeros(loss, (config.training.batch_size or 0, config.images.projection_dim)),
        candidates=None,
        temperature=TEMPERATURE,
        describe=functools.partial(describe, temperature=TEMPERATURE),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the experiment of a command line."""
    quiet_libraries()
    method = two_views.Method(
        command="barlow_twins",
        title=lambda config: KINDS[config.loss.loss].title,
        check=check,
        resolve=resolve,
        objective=objective,
        folder=lambda config: config.loss.loss,
    )
    two_views.run(parse(BarlowTwins, program="barlow_twins", arguments=arguments), method)


if __name__ == "__main__":
    main()
