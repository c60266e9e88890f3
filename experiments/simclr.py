"""SimCLR: an encoder learns from pairs of views of the same image, without labels.

    python -m experiments.simclr
    python -m experiments.simclr --dataset=folder:PATH
    python -m experiments.simclr --dataset=cifar10 --accelerator=gpu

The first command: one minute on 2 CPU cores; on test images linear 99.6 %, one label a class 89.8 %,
kNN 99.5 % (mean of seeds 0, 1, 2).

The second on 1,906 emoji of 64 x 64 pixels in 9 folders: 10 minutes on 2 CPU cores beside other work,
nearly 9 of CPU time; linear 64.9 %, one label a class 28.1 %, kNN 63.1 %, where raw pixels reach 65.7,
29.3 and 55.8 % (seed 0).

Reference: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020.
"""

import dataclasses
import functools
from collections.abc import Sequence

from experiments.images.recipes import (
    DIGITS,
    FEW_PHOTOS,
    PHOTOGRAPHS,
    PHOTOS,
    VIT_PHOTOGRAPHS,
    Images,
    Recipe,
    recipe_for,
)
from experiments.images.two_views import Method, Objective, check_options, fill_in, run
from experiments.running.memory import of_pairs
from experiments.running.options import (
    FloatOfRecipe,
    Machine,
    PrecisionOfLoss,
    Training,
    check_range,
    parse,
)
from experiments.running.precision import PRECISIONS, loss_precision
from experiments.running.process import quiet_libraries
from jaxcon.diagnostics import chance_loss
from jaxcon.losses import ntxent_loss

# Chosen on the validation images of the digits; the paper's search for CIFAR-10 (appendix B.9) spans
# temperatures around 0.5; 0.1 is the paper's for ImageNet, 0.2 that of MoCo v3.
TEMPERATURES = {
    DIGITS: 0.7,
    PHOTOS: 0.5,
    FEW_PHOTOS: 0.2,
    PHOTOGRAPHS: 0.1,
    VIT_PHOTOGRAPHS: 0.2,
}


@dataclasses.dataclass(frozen=True)
class Loss:
    """What is minimized: NT-Xent over the views of the global batch."""

    temperature: FloatOfRecipe = None
    """Similarities are divided by it."""
    loss_precision: PrecisionOfLoss = None
    """Precision of the products between embeddings: highest is float32, high three bfloat16 passes
    on a TPU and TF32 on an NVIDIA GPU. Default: highest; with --precision=bf16, bf16."""


@dataclasses.dataclass(frozen=True)
class SimCLR:
    """Pre-train an encoder by SimCLR, evaluate its frozen features, write a report.

    Running the same command again resumes, or shows the table of a finished run.

    Options without a value here take it from the recipe of the dataset, and config.json in the
    workdir says what they were:

    digits: mlp, 400 epochs of 256 images a step, adamw at 0.01, temperature 0.7

    photos up to 96 pixels, from 5,000 on: resnet18, 200 epochs of 512, lars at 1.0, temperature 0.5

    larger ones, from 5,000 on: resnet50, 100 epochs of 1,024, lars at 1.2, temperature 0.1; a vit:
    300 epochs of 1,024, adamw at 0.0006, temperature 0.2

    fewer photos: patch_convnet, 60 epochs of 128, adamw at 0.002, temperature 0.2
    """

    images: Images = dataclasses.field(default_factory=Images)
    loss: Loss = dataclasses.field(default_factory=Loss)
    training: Training = dataclasses.field(default_factory=Training)
    machine: Machine = dataclasses.field(default_factory=Machine)


def resolve(config: SimCLR, examples: int, side: int) -> tuple[SimCLR, Recipe]:
    """Returns the configuration with the recipe of its dataset filled in."""
    recipe = recipe_for(config.images.dataset, examples, side, config.images.encoder)
    precision = loss_precision(config.training.precision)
    loss = {"temperature": TEMPERATURES[recipe], "loss_precision": precision}
    return fill_in(config, recipe, examples, loss), recipe


def check(config: SimCLR) -> None:
    """Raises a ValueError for the first option that is out of range."""
    check_options(config)
    check_range(config.loss, "temperature", low=0)


def objective(config: SimCLR) -> Objective:
    """Returns NT-Xent; each view's candidates are all the other views of the batch."""
    temperature, batch_size = config.loss.temperature, config.training.batch_size
    assert config.loss.loss_precision is not None
    assert temperature is not None
    assert batch_size is not None
    candidates = 2 * batch_size - 1
    return Objective(
        loss=functools.partial(
            ntxent_loss,
            temperature=temperature,
            precision=PRECISIONS[config.loss.loss_precision],
            **of_pairs(config.machine),
        ),
        chance=chance_loss(candidates),
        candidates=candidates,
        temperature=temperature,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the experiment of a command line."""
    quiet_libraries()
    method = Method(
        command="simclr",
        title=lambda config: "SimCLR",
        check=check,
        resolve=resolve,
        objective=objective,
        folder=lambda config: "simclr",
    )
    run(parse(SimCLR, program="simclr", arguments=arguments), method)


if __name__ == "__main__":
    main()
