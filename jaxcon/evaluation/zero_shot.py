"""Classification without a classifier: which class's prompts does an image fit best?"""

from __future__ import annotations

import numpy as np


def zero_shot_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose own class has the highest mean score over its prompts.

    An image that fits m classes equally well counts as 1 / m where its own is among them, so that a
    model to which all prompts are the same is at chance.

    Example:
      >>> scores = np.array([[[0.9, 0.5], [0.6, 0.4]], [[0.2, 0.3], [0.1, 0.2]]])
      >>> zero_shot_accuracy(scores, np.array([0, 1]))
      0.5

    Args:
      scores: `[n, classes, prompts]`, of each image with each prompt of each class, higher is
        nearer.
      labels: int `[n]`, from 0 to classes - 1.

    Returns:
      Accuracy in [0, 1]; chance is 1 / classes.

    Raises:
      ValueError: for shapes that do not match, no image, labels out of range or NaN.

    Reference: Radford et al., Learning Transferable Visual Models From Natural Language
    Supervision, 2021, section 3.1.4.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 3 or not scores.size:
        raise ValueError(
            f"scores must be [n, classes, prompts], none of them 0, got {scores.shape}"
        )
    if labels.shape != scores.shape[:1]:
        raise ValueError(f"labels must be [n], {scores.shape[:1]}, got {labels.shape}")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(
            f"labels must be from 0 to {scores.shape[1] - 1}, got {labels.min()} to {labels.max()}"
        )
    bad = np.flatnonzero(np.isnan(scores).any(axis=(1, 2)))
    if len(bad):
        raise ValueError(f"image {bad[0]} has a score that is NaN; the encoder has diverged")
    classes = scores.mean(axis=2)
    best = classes == classes.max(axis=1, keepdims=True)
    own = best[np.arange(len(labels)), labels]
    return float(np.mean(own / best.sum(axis=1)))
