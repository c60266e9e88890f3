"""The options of an experiment on images, and what suits each kind of dataset."""

import dataclasses
from typing import NamedTuple

from experiments.running.encoders import Encoder, EncoderOfRecipe
from experiments.running.optimizers import OPTIMIZERS, Optimizer
from experiments.running.sources import Source
from jaxcon.augment import SIMCLR_COLOURS, Transform, digits_transform, simclr_transform


@dataclasses.dataclass(frozen=True)
class Images(Source):
    """What to learn from, and what learns."""

    dataset: str = "digits"
    """digits; your own images: folder:PATH (nested folders are classes), tar:PATH (shards of
    webdataset) or parquet:PATH; or a TensorFlow Datasets name (cifar10)."""
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
      learning_rate: peak rate; None: that of the optimizer.
      weight_decay: None: that of the optimizer.
      per_256: whether the rate is that of 256 images a step, and grows with their number.
      colours: make the two views of photographs, of which two crops come from the host.
    """

    transform: Transform
    encoder: Encoder
    batch_size: int
    epochs: int
    warmup_epochs: float
    optimizer: Optimizer
    learning_rate: float | None = None
    weight_decay: float | None = None
    per_256: bool = False
    colours: tuple[Transform, Transform] = SIMCLR_COLOURS


# What is usual for CIFAR-10; SimCLR's own search (appendix B.9) spans these rates around 1.0.
PHOTOS = Recipe(simclr_transform, "resnet18", 512, 200, 10, "lars")
# 10 minutes of CPU time for 2,000 images of 64 pixels, with evaluation.
FEW_PHOTOS = Recipe(simclr_transform, "patch_convnet", 128, 60, 4, "adamw")
# Chosen on the validation images.
DIGITS = Recipe(digits_transform, "mlp", 256, 400, 40, "adamw", learning_rate=1e-2)
# SimCLR's for ImageNet (section 2.3, appendix B) at a smaller batch: theirs is 4,096 on 128 chips.
PHOTOGRAPHS = Recipe(simclr_transform, "resnet50", 1024, 100, 10, "lars", 0.3, 1e-6, per_256=True)
# For vision transformers lars does not work; these are the settings of MoCo v3 (section 5), which has
# the same loss but for its teacher.
VIT_PHOTOGRAPHS = Recipe(
    simclr_transform, "vit_s16", 1024, 300, 40, "adamw", 1.5e-4, 0.1, per_256=True
)
# The recipes of known datasets; for others their size decides.
RECIPES = {
    "digits": DIGITS,
}
_LARGE = 96  # pixels, the largest side at which photos are taken for small ones
_MANY = 5000


def recipe_for(dataset: str, examples: int, side: int, encoder: str | None = None) -> Recipe:
    """Returns the recipe for a dataset.

    Example:
      >>> recipe_for("folder:photos", 100_000, 224, "vit_b16") is VIT_PHOTOGRAPHS
      True

    Args:
      dataset: its name.
      examples: number of training images.
      side: of the images that the encoder sees.
      encoder: value of the flag; None: the recipe's.
    """
    if dataset in RECIPES:
        return RECIPES[dataset]
    if examples < _MANY:
        return FEW_PHOTOS
    if side <= _LARGE:
        return PHOTOS
    return VIT_PHOTOGRAPHS if (encoder or "").startswith("vit") else PHOTOGRAPHS


def default_rates(recipe: Recipe, optimizer: str, batch_size: int) -> dict[str, float]:
    """Returns the default learning rate and weight decay of an optimizer.

    Example:
      >>> default_rates(PHOTOS, "lars", 512)
      {'learning_rate': 1.0, 'weight_decay': 1e-06}
      >>> default_rates(PHOTOGRAPHS, "lars", 4096)["learning_rate"]
      4.8
    """
    rule, rate, grows = OPTIMIZERS[optimizer], None, recipe.per_256
    if optimizer == recipe.optimizer:
        rate, decay = recipe.learning_rate, recipe.weight_decay
    else:
        decay = None
    if rate is None:
        rate, grows = rule.rate, rule.grows
    return {
        "learning_rate": rate * batch_size / 256 if grows else rate,
        "weight_decay": rule.decay if decay is None else decay,
    }
