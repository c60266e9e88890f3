"""How much frozen features are worth: probes and nearest neighbours, and their table."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from experiments.running.examples import map_rows
from experiments.running.verdict import Ahead
from jaxcon import report
from jaxcon.augment import to_float
from jaxcon.data.splits import Dataset, Split
from jaxcon.evaluation.knn import knn_accuracy
from jaxcon.evaluation.linear_probe import few_label_probe, linear_probe_accuracy

_SIDE = 32  # pixels from which raw ones are those of a smaller image
_FEW_LABELS = {"one_label": "one label a class", "five_labels": "five labels a class"}


class Features(NamedTuple):
    """Frozen features of the three splits."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def map_dataset(
    kinds: Mapping[str, Callable[[Any], Any]], dataset: Dataset, mesh: Mesh
) -> dict[str, Features]:
    """Returns each kind of features of all images of the three splits; images are read once.

    Args:
      kinds: what maps a batch of images on the devices to features, by kind.
      dataset: the images.
      mesh: devices that share a batch.
    """

    def apply(images: Any) -> dict[str, Any]:
        return {kind: features(images) for kind, features in kinds.items()}

    of_splits = [map_rows(apply, split.images, mesh=mesh) for split in splits(dataset)]
    return {kind: Features(*(of_split[kind] for of_split in of_splits)) for kind in kinds}


def splits(dataset: Dataset) -> tuple[Split, Split, Split]:
    """Returns the training, validation and test images."""
    return dataset.train, dataset.validation, dataset.test


def raw_pixels(images: Any) -> np.ndarray:
    """Returns the pixels themselves as features, which trained ones should beat.

    Images larger than 32 pixels are shrunk to 32 x 32: a photograph has more numbers than a linear
    classifier can use, and sets of them more than fit into memory.

    Example:
      >>> raw_pixels(np.full((1, 40, 64, 3), 255, np.uint8)).shape
      (1, 3072)
    """
    if max(images.shape[1:3]) > _SIDE:
        return np.asarray(_shrunk(images)).reshape(len(images), -1)
    return np.asarray(images).reshape(len(images), -1).astype(np.float32) / 255


@jax.jit
def _shrunk(images: jax.Array) -> jax.Array:
    shape = (len(images), _SIDE, _SIDE, images.shape[-1])
    return jax.image.resize(to_float(images), shape, "linear", antialias=True)


def pixels_name(image_shape: Sequence[int]) -> str:
    """Returns what a table calls the features of `raw_pixels`.

    Example:
      >>> pixels_name((8, 8, 1)), pixels_name((224, 224, 3))
      ('raw pixels', 'raw pixels at 32 x 32')
    """
    return f"raw pixels at {_SIDE} x {_SIDE}" if max(image_shape[:2]) > _SIDE else "raw pixels"


@dataclasses.dataclass(frozen=True)
class Accuracies:
    """Shares of test images that are classified correctly from some features, from 0 to 1.

    Attributes:
      linear: by a linear probe on all labels.
      five_labels: mean and deviation over probes on five labels a class.
      one_label: the same with one label a class.
      knn: by the nearest neighbours.
    """

    linear: float
    five_labels: tuple[float, float]
    one_label: tuple[float, float]
    knn: float

    def as_json(self) -> dict[str, Any]:
        """Returns the scores by their names in results.json."""
        return {
            "linear": self.linear,
            "5 labels": self.five_labels,
            "1 label": self.one_label,
            "kNN": self.knn,
        }


def evaluate(
    features: Features, dataset: Dataset, devices: Sequence[Any] | None = None
) -> Accuracies:
    """Returns the scores of frozen features of a dataset with labels, computed on the devices."""
    train, validation, test = (split.labels for split in splits(dataset))
    assert train is not None
    assert validation is not None
    assert test is not None
    arrays = (features.train, train, features.test, test)
    return Accuracies(
        linear=linear_probe_accuracy(
            *arrays,
            validation_x=features.validation,
            validation_y=validation,
            devices=devices,
        ),
        five_labels=few_label_probe(*arrays, labels_per_class=5),
        one_label=few_label_probe(*arrays, labels_per_class=1),
        knn=knn_accuracy(*arrays, devices=devices),
    )


def ahead(scores: Mapping[str, Accuracies]) -> Ahead | None:
    """Returns which features beat the trained encoder's with few labels, if any, and a sentence on it.

    Example:
      >>> few = {"linear": 0.9, "five_labels": (0.8, 0.02), "knn": 0.9}
      >>> shares = {"raw pixels": 0.35, "untrained encoder": 0.1, "trained encoder": 0.3}
      >>> scores = {name: Accuracies(one_label=(share, 0.02), **few) for name, share in shares.items()}
      >>> print(ahead(scores).sentence)
      With one label a class the trained encoder reaches 30.0%, less than raw pixels (35.0%).

    Args:
      scores: scores of "trained encoder" and of others; empty if there are no labels.
    """
    names, parts = [], []
    for field, said in _FEW_LABELS.items() if scores else ():
        shares = {name: getattr(row, field)[0] for name, row in scores.items()}
        own = shares["trained encoder"]
        better = {
            name.replace("untrained", "the untrained"): share
            for name, share in shares.items()
            # As precise as the table, so that the sentence and the table agree.
            if round(share, 3) > round(own, 3)
        }
        if better:
            names += [name for name in better if name not in names]
            listed = " and ".join(f"{name} ({share:.1%})" for name, share in better.items())
            parts.append(f"with {said} the trained encoder reaches {own:.1%}, less than {listed}")
    sentence = "; ".join(parts)
    return Ahead(" and ".join(names), f"{sentence[:1].upper()}{sentence[1:]}.") if parts else None


def evaluation_table(scores: Mapping[str, Mapping[str, Any]]) -> report.Table:
    """Returns the table: a row for each kind of features, a column for each evaluation.

    Args:
      scores: `as_json` of each kind of features, as in results.json.
    """
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
