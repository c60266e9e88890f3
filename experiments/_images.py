"""What experiments on images share: data, encoders, the evaluation table, figures and the page."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, get_args

import numpy as np

from experiments._options import Optimizer, OptionalInt, OptionalPath, of_recipe
from jaxcon import encoders, report
from jaxcon.augment import Transform, digits_transform, simclr_transform
from jaxcon.data.splits import Dataset, Split
from jaxcon.evaluation.knn import knn_accuracy
from jaxcon.evaluation.linear_probe import few_label_probe, linear_probe_accuracy

# One name, one network: a run's folder is to say what was trained in it.
Encoder = Literal[
    "mlp", "convnet", "patch_convnet", "layout_convnet", "resnet18", "resnet50", "vit"
]
EncoderOfRecipe = Annotated[
    Encoder | None,
    of_recipe(  # pyright: ignore[reportCallIssue]
        metavar=f"{{{','.join(get_args(Encoder))}}}",
        constructor=Encoder,  # pyright: ignore[reportArgumentType]
    ),
]


@dataclasses.dataclass(frozen=True)
class Images:
    """What is learned from, and what learns."""

    dataset: str = "digits"
    """digits, folder:PATH (nested folders are classes) or a TensorFlow Datasets name (cifar10)."""
    data_dir: OptionalPath = None
    """Where datasets are prepared. Default: the user's cache folder."""
    image_size: OptionalInt = None
    """Side that images are resized to. Default: that of most of them, at most 64."""
    encoder: EncoderOfRecipe = None
    """What is trained. convnet looks at every pixel; patch_convnet takes squares of pixels for one,
    which on 64 pixels is 25 times as fast; layout_convnet besides tells where things lie."""
    projection_dim: int = 128
    """Width of the embeddings that the loss sees; the evaluation sees the features before."""


class Recipe(NamedTuple):
    """Settings that fit a kind of dataset; every one of them is a flag too."""

    transform: Transform
    encoder: Encoder
    batch_size: int
    epochs: int
    warmup_epochs: float
    optimizer: Optimizer
    learning_rate: float | None = None


# What is usual for CIFAR-10; SimCLR's own search (appendix B.9) spans these rates around 1.0.
PHOTOS = Recipe(simclr_transform, "resnet18", 512, 200, 10, "lars")
# For 2,000 images of 64 pixels 10 minutes of CPU time, with evaluation.
FEW_PHOTOS = Recipe(simclr_transform, "patch_convnet", 128, 60, 4, "adamw")
# Chosen on the validation images.
DIGITS = Recipe(digits_transform, "mlp", 256, 400, 40, "adamw", learning_rate=1e-2)

# Peak at 256 images, and weight decay; the former grows with the batch except for adamw.
_RATES = {"adamw": (2e-3, 1e-4), "lars": (0.5, 1e-6), "sgd": (0.3, 1e-4)}


def recipe_for(dataset: str, examples: int) -> Recipe:
    """Return the recipe for a dataset by its name and its number of training images."""
    if dataset == "digits":
        return DIGITS
    return PHOTOS if examples >= 5000 else FEW_PHOTOS


def default_rates(recipe: Recipe, optimizer: str, batch_size: int) -> dict[str, float]:
    """Return the default learning rate and weight decay of an optimizer.

    >>> default_rates(PHOTOS, "lars", 512)
    {'learning_rate': 1.0, 'weight_decay': 1e-06}
    """
    rate, decay = _RATES[optimizer]
    rate = rate if optimizer == "adamw" else rate * batch_size / 256
    if optimizer == recipe.optimizer and recipe.learning_rate is not None:
        rate = recipe.learning_rate
    return {"learning_rate": rate, "weight_decay": decay}


def default_batch(largest: int, examples: int) -> int:
    """Return the recipe's batch, halved until the dataset fills two.

    >>> default_batch(512, 300)
    128
    """
    while largest > 2 and 2 * largest > examples:
        largest //= 2
    return largest


def make_encoder(name: Encoder, *, side: int, **settings: Any) -> Any:
    """Return the encoder that the flag names, for images of `side` pixels."""
    patch = max(side // 16, min(side // 8, 4), 1)  # maps of 8 to 16 places a side
    constructors: dict[str, Callable[..., Any]] = {
        "mlp": encoders.MLP,
        "convnet": encoders.ConvNet,
        "patch_convnet": functools.partial(encoders.ConvNet, patch=patch),
        "layout_convnet": functools.partial(
            encoders.ConvNet, patch=patch, narrow=(32, 32, 64), layout=True
        ),
        "resnet18": encoders.resnet18,
        "resnet50": encoders.resnet50,
        "vit": encoders.ViT,
    }
    return constructors[name](**settings)


def map_rows(apply: Callable[[np.ndarray], Any], images: Any, *, batch: int = 64) -> np.ndarray:
    """Return `apply` of every row as one array: batches of one size, so one compilation.

    >>> map_rows(lambda x: x + 1, np.arange(5), batch=2).tolist()
    [1, 2, 3, 4, 5]
    """
    outputs = []
    for start in range(0, len(images), batch):
        rows = np.stack([images[i] for i in range(start, min(start + batch, len(images)))])
        padding = [(0, batch - len(rows)), *[(0, 0)] * (rows.ndim - 1)]
        outputs.append(np.asarray(apply(np.pad(rows, padding)))[: len(rows)])
    return np.concatenate(outputs)


def take(split: Split, rows: np.ndarray) -> np.ndarray:
    """Return the images of an array of row numbers: `[*rows.shape, height, width, channels]`."""
    images = np.stack([split.images[int(i)] for i in rows.flat])
    return images.reshape(*rows.shape, *images.shape[1:])


class Features(NamedTuple):
    """Frozen features of the three splits."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def map_dataset(apply: Callable[[np.ndarray], Any], dataset: Dataset) -> Features:
    """Return `apply` of every image of the three splits."""
    return Features(*(map_rows(apply, split.images) for split in splits(dataset)))


def splits(dataset: Dataset) -> tuple[Split, Split, Split]:
    """Return the training, validation and test images."""
    return dataset.train, dataset.validation, dataset.test


def raw_pixels(images: np.ndarray) -> np.ndarray:
    """Return the pixels themselves as features: what has to be beaten."""
    return images.reshape(len(images), -1).astype(np.float32) / 255


def evaluate(features: Features, dataset: Dataset) -> dict[str, Any]:
    """Return the scores of one row of the table: shares of test images named rightly."""
    train, validation, test = (split.labels for split in splits(dataset))
    assert train is not None
    assert validation is not None
    assert test is not None
    arrays = (features.train, train, features.test, test)
    return {
        "linear": linear_probe_accuracy(
            *arrays, validation_x=features.validation, validation_y=validation
        ),
        "5 labels": few_label_probe(*arrays, labels_per_class=5),
        "1 label": few_label_probe(*arrays, labels_per_class=1),
        "kNN": knn_accuracy(*arrays),
    }


def evaluation_table(scores: Mapping[str, Mapping[str, Any]]) -> report.Table:
    """Return the table: a row for each kind of features, a column for each evaluation."""
    columns = list(next(iter(scores.values())))
    names = {"5 labels": "5 labels a class", "1 label": "1 label a class"}
    rows: Sequence[Sequence[Any]] = [
        (name, *(_cell(row[c]) for c in columns)) for name, row in scores.items()
    ]
    return report.Table(
        ("features", *(names.get(c, c) for c in columns)), rows, emphasis="trained encoder"
    )


def _cell(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value
