"""How much frozen features are worth: probes and neighbours, and the table of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.running.examples import map_rows
from jaxcon import report
from jaxcon.data.splits import Dataset, Split
from jaxcon.evaluation.knn import knn_accuracy
from jaxcon.evaluation.linear_probe import few_label_probe, linear_probe_accuracy


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
