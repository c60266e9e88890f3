"""The options of an experiment on images, and what suits each kind of dataset."""

import dataclasses
from typing import NamedTuple

from experiments.running.encoders import Encoder, EncoderOfRecipe
from experiments.running.optimizers import OPTIMIZERS, Optimizer
from experiments.running.options import OptionalInt, OptionalPath
from jaxcon.augment import SIMCLR_COLOURS, Transform, digits_transform, simclr_transform


@dataclasses.dataclass(frozen=True)
class Images:
    """What to learn from, and what learns."""

    dataset: str = "digits"
    """digits, folder:PATH (nested folders are classes) or a TensorFlow Datasets name (cifar10)."""
    data_dir: OptionalPath = None
    """Where datasets are prepared, also gs://BUCKET/FOLDER or s3://BUCKET/FOLDER. Default: the user's
    cache folder."""
    image_size: OptionalInt = None
    """Side to which images are resized. Default: their own if fixed, else at most 64."""
    encoder: EncoderOfRecipe = None
    """What is trained. convnet looks at every pixel; patch_convnet takes squares of pixels as one,
    which at 64 pixels is 25 times as fast; layout_convnet also tells where things are. vit has patches
    of 4 pixels; vit_s16, vit_b16 and vit_l16 are those of the papers, with patches of 16."""
    projection_dim: int = 128
    """Width of the embeddings that the loss sees; evaluation takes the features before them."""


class Recipe(NamedTuple):
    """Settings that fit a kind of dataset; all but views are flags too.

    Attributes:
      transform: makes a view of an image that comes whole.
      colours: make the two views of photographs, of which two crops come from the host.
    """

    transform: Transform
    encoder: Encoder
    batch_size: int
    epochs: int
    warmup_epochs: float
    optimizer: Optimizer
    learning_rate: float | None = None
    colours: tuple[Transform, Transform] = SIMCLR_COLOURS


# What is usual for CIFAR-10; SimCLR's own search (appendix B.9) spans these rates around 1.0.
PHOTOS = Recipe(simclr_transform, "resnet18", 512, 200, 10, "lars")
# 10 minutes of CPU time for 2,000 images of 64 pixels, with evaluation.
FEW_PHOTOS = Recipe(simclr_transform, "patch_convnet", 128, 60, 4, "adamw")
# Chosen on the validation images.
DIGITS = Recipe(digits_transform, "mlp", 256, 400, 40, "adamw", learning_rate=1e-2)
# The recipes of known datasets; for others their size decides.
RECIPES = {
    "digits": DIGITS,
}


def recipe_for(dataset: str, examples: int) -> Recipe:
    """Returns the recipe for a dataset by its name and its number of training images."""
    return RECIPES.get(dataset, PHOTOS if examples >= 5000 else FEW_PHOTOS)


def default_rates(recipe: Recipe, optimizer: str, batch_size: int) -> dict[str, float]:
    """Returns the default learning rate and weight decay of an optimizer.

    Example:
      >>> default_rates(PHOTOS, "lars", 512)
      {'learning_rate': 1.0, 'weight_decay': 1e-06}
    """
    rule = OPTIMIZERS[optimizer]
    rate = rule.rate * batch_size / 256 if rule.grows else rule.rate
    if optimizer == recipe.optimizer and recipe.learning_rate is not None:
        rate = recipe.learning_rate
    return {"learning_rate": rate, "weight_decay": rule.decay}
