"""What the probes share: features as float32 rows, and errors about their shapes."""

from __future__ import annotations

import numpy as np


def as_rows(name: str, features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Checks one labelled set of features; trailing axes are flattened.

    Example:
      >>> rows, labels = as_rows("train", np.zeros((4, 8, 8, 1), np.uint8), [0, 1, 0, 1])
      >>> rows.shape, rows.dtype
      ((4, 64), dtype('float32'))

    Raises:
      ValueError: if features and labels do not match, there are none, or a feature is not finite.
    """
    labels = np.asarray(labels)
    if not len(labels) or labels.shape != (len(features),):
        raise ValueError(
            f"{name}: {len(features)} rows of features need as many labels, and at least one; "
            f"got labels of shape {labels.shape}"
        )
    rows = np.asarray(features, np.float32).reshape(len(labels), -1)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{name}: {len(bad)} rows of features are not finite, the first is row {bad[0]}; "
            "the encoder that made them has diverged"
        )
    return rows, labels


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows divided by their lengths; rows of zeros stay zero.

    Example:
      >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
      [[0.6, 0.8], [0.0, 0.0]]
    """
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.where(largest > 0, largest, 1)  # squares neither overflow nor vanish
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)
