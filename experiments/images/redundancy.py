"""Correlations of features between two views, before and after training: in numbers and drawn."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.running.examples import Pairs
from experiments.running.figures import Drawing, matrices
from jaxcon import report


def cross_correlation(z1: np.ndarray, z2: np.ndarray) -> np.ndarray:
    """Returns the correlations of each feature of one view with each of the other: `[dim, dim]`.

    Example:
      >>> z = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
      >>> cross_correlation(z, z[:, ::-1]).round(2).tolist()
      [[0.0, 1.0], [1.0, 0.0]]

    Args:
      z1: embeddings of one view, `[n, dim]`, any scale.
      z2: embeddings of another view of the same images.
    """

    def standardize(z: np.ndarray) -> np.ndarray:
        z = z - z.mean(axis=0, dtype=np.float64)
        # Not the loss's 1e-5 under the root: an untrained encoder's features are smaller than that.
        return z / np.maximum(z.std(axis=0), 1e-12)

    return standardize(z1).T @ standardize(z2) / len(z1)  # (d, n) . (n, d)


def diagonal_and_rest(c: np.ndarray) -> tuple[float, float]:
    """Returns the mean of the diagonal, and the root mean square off it.

    Example:
      >>> diagonal_and_rest(np.eye(3))
      (1.0, 0.0)
    """
    rest = c[~np.eye(len(c), dtype=bool)]
    return float(np.diagonal(c).mean()), float(np.sqrt((rest**2).mean()))


def describe(
    folder: Path, embeddings: Mapping[str, Pairs], *, temperature: float
) -> tuple[list[Drawing], list[str]]:
    """Returns how to draw the cross-correlations, and sentences: what was checked, and the numbers.

    Args:
      folder: folder for the figure.
      embeddings: those of two views of test images, `before` and `after` training, each `[n, dim]`.
      temperature: temperature of the collapse check, for a loss that has none.
    """
    correlations = {when: cross_correlation(*pairs) for when, pairs in embeddings.items()}
    said = {w: "{:.2f} and {:.2f}".format(*diagonal_and_rest(c)) for w, c in correlations.items()}
    rows, dim = embeddings["after"][0].shape
    sentences = [
        f"The loss that the check mentions is clip_loss at temperature {temperature}: it has a "
        "chance level whatever the embeddings were trained with.",
        f"Correlations of the {dim} features between two views of {rows:,} test images, mean of the "
        f"diagonal and root mean square off it: {said['after']}; before training "
        f"{said['before']}. Barlow Twins aims at 1 and 0.",
    ]

    def draw() -> report.Figure:
        path = folder / "correlation.png"
        labels = {"rows": "feature of one view", "columns": "feature of another view"}
        matrices(path, correlations, **labels, label="correlation")
        return report.Figure(
            path,
            f"Correlations of the {dim} embedded features of a view (rows) with those of another "
            f"(columns) over {rows:,} test images: agreement on the diagonal, redundancy off it.",
        )

    return [("correlation", draw)], sentences
