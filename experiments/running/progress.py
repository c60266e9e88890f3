"""Scores while a run trains: how far its embeddings spread, and the curves of all scores on the page.

`--evaluate-every` asks for them; they stand in metrics.jsonl beside the loss of the step before.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from threadpoolctl import ThreadpoolController

from experiments.running.figures import Drawing
from jaxcon import report
from jaxcon.diagnostics import effective_rank
from jaxcon.losses import alignment_loss, uniformity_loss
from jaxcon.similarity import l2_normalize
from jaxcon.training.metrics import read_metrics
from jaxcon.training.workdir import Workdir

# The scores in metrics.jsonl, as a figure names them.
_NAMES = {
    "knn": "kNN accuracy",
    "recall_at_1": "recall@1",
    "effective_rank": "effective rank",
    "alignment": "alignment (lower is better)",
    "uniformity": "uniformity (lower is better)",
}
_LINES = 50  # points from which a curve needs no marks


def spreading(z1: np.ndarray, z2: np.ndarray) -> dict[str, float]:
    """Returns effective rank, alignment and uniformity of pairs, as the collapse report defines them.

    Example:
      >>> spreading(np.eye(3), np.eye(3))["alignment"]
      0.0

    Args:
      z1: `[n, dim]`, embeddings of held-out pairs.
      z2: `[n, dim]`, the other embeddings of the pairs.

    Returns:
      Values by their names in metrics.jsonl; NaN if embeddings are not finite, none of fewer than
      two pairs.
    """
    if len(z1) < 2:
        return {}
    if not (np.isfinite(z1).all() and np.isfinite(z2).all()):
        return dict.fromkeys(("effective_rank", "alignment", "uniformity"), float("nan"))
    (alignment, uniformity), directions = jax.device_get(_measure(z1, z2))
    with _controller().limit(limits=1, user_api="blas"):  # threads would wait for each other
        rank = min(effective_rank(of_one) for of_one in directions)
    return {
        "effective_rank": rank,
        "alignment": float(alignment),
        "uniformity": float(uniformity),
    }


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # finding the libraries takes longer than the ranks


@jax.jit
def _measure(z1: jax.Array, z2: jax.Array) -> Any:
    uniformity = (uniformity_loss(z1) + uniformity_loss(z2)) / 2
    return (alignment_loss(z1, z2), uniformity), (l2_normalize(z1), l2_normalize(z2))


def score_curves(workdir: Workdir, steps_per_epoch: int, told: Mapping[str, str]) -> list[Drawing]:
    """Returns the drawing of the scores while the run trained, if there are any.

    Args:
      workdir: the run's folder.
      steps_per_epoch: steps of an epoch.
      told: sentences on what was scored, by the name of a score or "spread" for the others.
    """
    rows = [row for row in read_metrics(workdir.metrics) if _NAMES.keys() & row.keys()]
    if not rows:
        return []
    epochs = np.array([(row["step"] + 1) / steps_per_epoch for row in rows])
    curves = {
        name: np.array([np.nan if row.get(name) is None else row[name] for row in rows])
        for name in _NAMES
        if any(row.get(name) is not None for row in rows)
    }
    return [("scores", lambda: _draw(workdir.figures / "scores.png", epochs, curves, told))]


def _draw(
    path: Path, epochs: np.ndarray, curves: Mapping[str, np.ndarray], told: Mapping[str, str]
) -> report.Figure:
    def panel(name: str) -> Any:
        def draw(ax: Any) -> None:
            ax.plot(epochs, curves[name], linewidth=1.2, marker="." if len(epochs) < _LINES else "")
            ax.set(xlabel="epoch")
            ax.set_title(_NAMES[name], fontsize=9)
            ax.grid(alpha=0.3)

        return draw

    report.draw(path, *map(panel, curves), width=9.2 / len(curves), aspect=1.0)
    ends = ", ".join(
        f"{_NAMES[name].partition(' (')[0]} {curve[0]:.3g} to {curve[-1]:.3g}"
        for name, curve in curves.items()
    )
    said = " ".join(sentence for name, sentence in told.items() if name in {*curves, "spread"})
    return report.Figure(path, f"Scores while it trained, from first to last: {ends}. {said}")
