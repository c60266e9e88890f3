"""Classification without a classifier: which class's prompts fit an image best?

>>> images = np.array([[1.0, 0.1], [0.2, 1.0]])
>>> prompts = np.array([[[1.0, 0.0], [1.0, 0.4]], [[0.0, 1.0], [0.4, 1.0]]])  # two a class
>>> scores = zero_shot_scores(images, prompts)
>>> zero_shot_accuracy(scores, np.array([0, 1]))
1.0
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxcon.evaluation.features import (
    DECIMALS,
    as_float_rows,
    as_labels,
    require_one_width,
    shares,
    unit_rows,
)


def class_embeddings(prompts: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """Returns one embedding per class: the mean of its normalized prompts, normalized again.

    Example:
      >>> class_embeddings(np.array([[[3.0, 4.0], [4.0, 3.0]]])).round(4).tolist()
      [[0.7071, 0.7071]]

    Args:
      prompts: `[classes, prompts, *features]`, any scale; or for each class an array
        `[prompts, *features]`, if classes have different numbers of prompts.

    Returns:
      float64 `[classes, dim]`, rows of length 1 (or 0 if the prompts cancel).

    Raises:
      ValueError: if there is no class, a class has no prompts, or values differ in width or are not
        finite.

    Reference:
      Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021,
      section 3.1.4, and the authors' notebook Prompt_Engineering_for_ImageNet.ipynb.
    """
    if not len(prompts) or not all(
        np.ndim(of_class) >= 2 and len(of_class) for of_class in prompts
    ):
        raise ValueError(
            "prompts must be [classes, prompts, *features], all at least 1; "
            f"got {len(prompts)} classes, shapes {[np.shape(p) for p in prompts[:3]]}"
        )
    rows = {f"class {i}": as_float_rows(f"class {i}", p) for i, p in enumerate(prompts)}
    require_one_width(**rows)
    means = np.stack([unit_rows(p.astype(np.float64)).mean(axis=0) for p in rows.values()])
    # What is left of prompts that cancel is rounding, not a direction.
    return unit_rows(np.where(np.abs(means).max(axis=1, keepdims=True) > 10.0**-DECIMALS, means, 0))


def zero_shot_scores(images: np.ndarray, prompts: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """Computes cosines of images with the `class_embeddings` of prompts: CLIP's ensemble.

    Args:
      images: `[n, *features]`, any scale.
      prompts: as in `class_embeddings`.

    Returns:
      float64 `[n, classes, 1]`, one score per class, to 12 decimals, for `zero_shot_accuracy`.

    Raises:
      ValueError: as in `class_embeddings`, or if images and prompts differ in width.
    """
    rows, classes = as_float_rows("images", images), class_embeddings(prompts)
    require_one_width(images=rows, prompts=classes)
    cosines = unit_rows(rows.astype(np.float64)) @ classes.T  # (n, d) . (d, classes)
    return np.round(cosines, DECIMALS)[:, :, None]


def zero_shot_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Computes the share of images whose own class has the highest mean score over its prompts.

    An image that fits m classes equally well counts as 1 / m if its own is among them, so a model to
    which all prompts look the same is at chance.

    Example:
      >>> scores = np.array([[[0.9, 0.5], [0.6, 0.4]], [[0.2, 0.3], [0.1, 0.2]]])
      >>> zero_shot_accuracy(scores, np.array([0, 1]))
      0.5

    Args:
      scores: `[n, classes, prompts]`, of each image with each prompt of each class; higher is
        nearer. `zero_shot_scores` gives those of CLIP, which averages a class's prompts as embeddings
        and so has one score per class; averaging the scores of several prompts is another ensemble,
        for when there are only scores.
      labels: int `[n]`, from 0 to classes - 1.

    Returns:
      Accuracy in [0, 1]; chance is 1 / classes.

    Raises:
      ValueError: if shapes do not match, there is no image, labels are out of range or scores are NaN.
    """
    scores, labels = np.asarray(scores), as_labels("labels", labels)
    if scores.ndim != 3 or not scores.size:
        raise ValueError(
            f"scores must be [n, classes, prompts], all at least 1, got {scores.shape}"
        )
    if labels.shape != scores.shape[:1]:
        raise ValueError(f"labels must be [n], {scores.shape[:1]}, got {labels.shape}")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(
            f"labels must be from 0 to {scores.shape[1] - 1}, got {labels.min()} to {labels.max()}"
        )
    scores = scores.astype(np.float64)
    bad = np.flatnonzero(np.isnan(scores).any(axis=(1, 2)))
    if len(bad):
        raise ValueError(f"image {bad[0]} has a score that is NaN; the encoder has diverged")
    return float(np.mean(shares(scores.mean(axis=2), labels.astype(np.int64))))
