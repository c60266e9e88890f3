"""k nearest neighbours of frozen features: needs no training and has almost nothing to choose."""

from __future__ import annotations

import numpy as np

from jaxcon.evaluation.features import as_rows, unit_rows

_BLOCK = 1024


def knn_accuracy(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Share of test rows whose nearest training rows vote for their class.

    The k training rows with the largest cosine s vote for their class with weight
    exp(s / temperature); the class with most votes wins.

    Example:
      >>> x, y = np.eye(3), np.array([0, 1, 2])
      >>> knn_accuracy(x, y, x + 0.1, y, k=1)
      1.0

    Args:
      train_x: `[n, *features]`, any scale.
      train_y: int `[n]`.
      test_x: `[m, *features]`.
      test_y: int `[m]`.
      k: neighbours, at least 1; all of train where it has fewer.
      temperature: above 0; small values trust the nearest, large ones count heads.

    Returns:
      Accuracy in [0, 1].

    Raises:
      ValueError: for settings out of range, shapes that do not match or features not finite.

    Reference: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination,
    CVPR 2018, section 3.4; k = 20 is the setting of Caron et al., DINO, ICCV 2021.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    train_x, train_y = as_rows("train", train_x, train_y)
    test_x, test_y = as_rows("test", test_x, test_y)
    classes, numbers = np.unique(train_y, return_inverse=True)
    train, test = unit_rows(train_x), unit_rows(test_x)
    k = min(k, len(train))
    hits = 0
    for start in range(0, len(test), _BLOCK):
        cosine = test[start : start + _BLOCK] @ train.T  # (block, d) . (d, n) -> (block, n)
        nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        s = np.take_along_axis(cosine, nearest, axis=1)
        weights = np.exp((s - s.max(axis=1, keepdims=True)) / temperature)
        votes = np.zeros((len(s), len(classes)))
        np.add.at(votes, (np.arange(len(s))[:, None], numbers[nearest]), weights)
        hits += int(np.sum(classes[votes.argmax(axis=1)] == test_y[start : start + _BLOCK]))
    return hits / len(test)
