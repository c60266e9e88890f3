"""Linear classifiers on frozen features: with all labels, and with n labels per class.

Draws of few labels are a function of the labels and a seed alone, so that every set of features is
measured on the same ones: single draws of one label per class differ by ten points and more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from jaxcon.evaluation.features import (
    as_labels,
    as_rows,
    at_least_one,
    numbered,
    own_devices,
    require_one_width,
    shares,
    unit_rows,
)
from jaxcon.evaluation.logistic import Linear, fit

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
_COLUMNS = 64  # features that are standardized at a time
_EQUAL = 1e-5  # by how much odds of classes that fit equally well may differ, found in float32
# Below this many features in all, BLAS threads cost more than they bring: on two busy cores 100
# draws of ten labels per class took 7 s with them and 0.3 s without.
_MANY_FEATURES = 2**23


def linear_probe_accuracy(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    validation_x: np.ndarray,
    validation_y: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
    devices: Sequence[Any] | None = None,
) -> float:
    """Computes the test accuracy of multinomial logistic regression on all labels.

    Features are standardized with the training rows' mean and standard deviation. The inverse
    strength C of the l2 penalty is the one of `strengths` that classifies validation best (of equally
    good ones the smallest, which is the simplest model); with it the model is fitted again, on train
    and validation together. All strengths are fitted side by side on the devices, each to its optimum
    (`jaxcon.evaluation.logistic`). A test row that m classes fit equally well counts as 1 / m if its
    own is among them, so collapsed features are at chance, whatever the classes are called.

    Example:
      >>> x, y = np.array([[0.0], [0.1], [1.0], [1.1]]), np.array([0, 0, 1, 1])
      >>> linear_probe_accuracy(x, y, x, y, validation_x=x, validation_y=y)
      1.0

    Args:
      train_x: `[n, *features]`, any scale.
      train_y: int `[n]`, at least two classes.
      test_x: `[m, *features]`.
      test_y: int `[m]`.
      validation_x: `[v, *features]`.
      validation_y: int `[v]`.
      strengths: values of C to try, each above 0.
      devices: devices of this process, which share the rows; None: all of them, and one on CPUs.

    Returns:
      Accuracy in [0, 1].

    Raises:
      ValueError: if there is only one class, a strength is not above 0, shapes do not match or
        features are not finite.

    Reference:
      The protocol of Radford et al., CLIP, 2021, appendix A.3.
    """
    strengths = sorted(float(c) for c in strengths)
    if not strengths or not all(0 < c < math.inf for c in strengths):
        raise ValueError(f"strengths must be above 0 and finite, at least one, got {strengths}")
    devices = own_devices(devices)
    train_x, train_y = as_rows("train", train_x, train_y)
    validation_x, validation_y = as_rows("validation", validation_x, validation_y)
    test_x, test_y = as_rows("test", test_x, test_y)
    _require_two_classes(train_y)
    train_y, validation_y, test_y = numbered(train_y, validation_y, test_y)
    require_one_width(train=train_x, validation=validation_x, test=test_x)
    train_x, validation_x, test_x = _standardized(train_x, validation_x, test_x)
    both_x = np.concatenate([train_x, validation_x])
    if both_x.shape[1] > len(both_x):
        # The penalty keeps weights in the span of the rows that are fitted. In coordinates of that
        # span, fewer than the pixels of a few photos, the classifier is the same and found sooner.
        with threadpool_limits(1, "blas"):
            basis = np.linalg.qr(both_x.T)[0]  # (features, rows)
            train_x, validation_x, test_x = (
                rows @ basis for rows in (train_x, validation_x, test_x)
            )
        both_x = np.concatenate([train_x, validation_x])
    both_y = np.concatenate([train_y, validation_y])
    classes = int(1 + max(both_y.max(), test_y.max()))
    models = fit(train_x, train_y, strengths, classes=classes, devices=devices)
    found = [_accuracy(model, validation_x, validation_y) for model in models]
    best = int(np.argmax(found))
    (model,) = fit(both_x, both_y, [strengths[best]], classes=classes, devices=devices)
    return _accuracy(model, test_x, test_y)


def _standardized(train: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Standardizes all by the training rows, in float32, at any scale that their dtype holds."""
    standardized = [np.empty(rows.shape, np.float32) for rows in (train, *others)]
    for start in range(0, train.shape[1], _COLUMNS):  # in float64, some at a time
        part = np.s_[:, start : start + _COLUMNS]
        columns = _standardized_columns(*(rows[part] for rows in (train, *others)))
        for rows, of_rows in zip(standardized, columns, strict=True):
            rows[part] = of_rows
    return standardized


def _standardized_columns(train: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    rounding = 8 * np.finfo(train.dtype).eps
    # By the largest first: squares of 1e25 overflow in float32, those of 1e-25 vanish.
    largest = np.abs(train).max(axis=0).astype(np.float64)
    scale = np.where(largest > 0, largest, 1)
    scaled = train / scale
    mean, deviation = scaled.mean(axis=0), scaled.std(axis=0)
    # A feature that never changes would only have its rounding error amplified.
    deviation = np.where(deviation > rounding, deviation, np.inf)
    limit = np.finfo(np.float32).max ** 0.5  # a test row may lie beyond all of training
    return [
        np.clip((rows / scale - mean) / deviation, -limit, limit).astype(np.float32)
        for rows in (train, *others)
    ]


def _accuracy(model: Linear, rows: np.ndarray, labels: np.ndarray) -> float:
    """Averages the `shares` of the classes' odds; the optimum is known to about `_EQUAL`."""
    scores = model.scores(rows).astype(np.float64)
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    return float(np.mean(shares(odds, labels, tolerance=_EQUAL)))


def _share(values: np.ndarray, classes: np.ndarray, labels: np.ndarray) -> float:
    """Averages the `shares` of values `[n, classes]`, of the numbered classes that a model knows."""
    of_all = np.full((len(values), 1 + max(classes.max(), labels.max())), -np.inf)
    of_all[:, classes] = values
    return float(np.mean(shares(of_all, labels)))


def few_label_probe(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    labels_per_class: int,
    num_draws: int = 100,
    seed: int = 0,
    penalty: float = 1.0,
) -> tuple[float, float]:
    """Computes mean and deviation of the test accuracy over draws of n labels per class.

    Each draw fits a ridge classifier in closed form. With X the drawn rows, scaled to unit length
    and centred, and Y their one-hot labels, centred:

        W = X' (X X' + penalty * trace(X X') / n * I)^-1 Y

    and the class is the largest entry of (x - mean) W. The penalty is relative to the features'
    own spread and fixed in advance, since few labels leave nothing to choose it by. Ties count as in
    `linear_probe_accuracy`.

    Example:
      >>> x, y = np.eye(4)[[0, 0, 1, 1]], np.array([0, 0, 1, 1])
      >>> few_label_probe(x, y, x, y, labels_per_class=1)
      (1.0, 0.0)

    Args:
      train_x: `[n, *features]`, any scale.
      train_y: int `[n]`, at least two classes.
      test_x: `[m, *features]`.
      test_y: int `[m]`.
      labels_per_class: at least 1; classes with fewer give all they have.
      num_draws: at least 1.
      seed: passed to `few_label_draws`.
      penalty: above 0, finite.

    Returns:
      (mean, standard deviation) of the accuracies, each in [0, 1].

    Raises:
      ValueError: if settings are out of range, there is only one class, shapes do not match or
        features are not finite.
    """
    num_draws = at_least_one("num_draws", num_draws)
    if not 0 < penalty < math.inf:
        raise ValueError(f"penalty must be above 0 and finite, got {penalty}")
    train_x, train_y = as_rows("train", train_x, train_y)
    test_x, test_y = as_rows("test", test_x, test_y)
    _require_two_classes(train_y)
    train_y, test_y = numbered(train_y, test_y)
    require_one_width(train=train_x, test=test_x)
    train, test = unit_rows(train_x), unit_rows(test_x)
    draws = few_label_draws(train_y, labels_per_class, num_draws=num_draws, seed=seed)
    with threadpool_limits(None if test.size > _MANY_FEATURES else 1, "blas"):
        accuracies = [
            _share(*_ridge(train[rows], train_y[rows], test, penalty), test_y) for rows in draws
        ]
    return float(np.mean(accuracies)), float(np.std(accuracies))


def few_label_draws(
    labels: np.ndarray, labels_per_class: int, *, num_draws: int = 100, seed: int = 0
) -> Iterator[np.ndarray]:
    """Draws rows with `labels_per_class` of every class at random, `num_draws` times.

    The draws are a function of the arguments alone, on every machine and version: draw d puts the rows
    in the order of Philox words with key (seed, d) and takes the first n of every class. So the draws
    for one label per class are part of those for five.

    Example:
      >>> [len(rows) for rows in few_label_draws(np.array([0, 0, 1, 1, 1]), 2, num_draws=2)]
      [4, 4]

    Yields:
      int64 `[classes * labels_per_class]`, fewer if a class has fewer rows.

    Raises:
      ValueError: if settings are out of range, or labels are neither whole numbers nor names.
    """
    labels_per_class = at_least_one("labels_per_class", labels_per_class)
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be from 0 to 2^64 - 1, got {seed}")
    (labels,) = numbered(as_labels("labels", labels))
    for draw in range(num_draws):
        words = np.random.Philox(key=np.array([seed, draw], np.uint64)).random_raw(len(labels))
        order = np.lexsort((words, labels))  # by class, at random within it
        _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
        yield order[np.arange(len(labels)) - np.repeat(starts, counts) < labels_per_class]


def _ridge(
    rows: np.ndarray, labels: np.ndarray, test: np.ndarray, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scores `[m, classes]` of test rows, and the classes."""
    classes, numbers = np.unique(labels, return_inverse=True)
    targets = np.eye(len(classes), dtype=np.float32)[numbers]
    mean, of_classes = rows.mean(axis=0), targets.mean(axis=0)
    x = rows - mean
    # A feature that never changes would only have its rounding error amplified.
    rounding = 8 * np.finfo(rows.dtype).eps * np.abs(rows).max(axis=0)
    x = np.where(np.abs(x).max(axis=0) > rounding, x, 0)
    gram = x @ x.T
    spread = max(float(np.trace(gram)) / len(gram), 1e-12)  # identical rows: predict the shares
    weights = x.T @ np.linalg.solve(
        gram + penalty * spread * np.eye(len(gram), dtype=np.float32), targets - of_classes
    )
    return (test - mean) @ weights + of_classes, classes


def _require_two_classes(labels: np.ndarray) -> None:
    if len(np.unique(labels)) < 2:
        raise ValueError("train: a probe needs at least two classes, got one")
