"""What the pages of all experiments show: curves, matrices, input images, neighbours, a map.

Scores are on disk before anything is drawn; a figure that fails costs a line, not the run.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.running.examples import Pairs
from experiments.running.process import say
from jaxcon import plots, report
from jaxcon.similarity import cosine_similarity
from jaxcon.training.metrics import read_metrics

Picture = report.Figure | report.Gallery
# A figure's name, for the line if it fails, and what draws it.
Drawing = tuple[str, Callable[[], Picture]]

COMPARED = 32  # pairs in a heat-map: as many as can be told apart
SHOWN = 8  # examples in a gallery


def drawn(drawings: Sequence[Drawing]) -> tuple[list[Picture], list[str]]:
    """Returns the figures, and a sentence for each that could not be drawn, which is also printed."""
    figures, failures, said = [], [], set()
    for name, draw in drawings:
        try:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always", UserWarning)
                warnings.filterwarnings("ignore", "Glyph .* missing")  # matplotlib's, a line each
                figures.append(draw())
            for line in (str(warning.message) for warning in told):
                if line not in said:
                    said.add(line)
                    say(f"figure {name}: {line}")
        # Fonts, characters in a user's texts, odd sizes: none of them should end a run.
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or "no reason given"
            failures.append(f"The figure {name} is missing: {type(error).__name__}, {reason}.")
            say(failures[-1])
    return figures, failures


def loss_curve(folder: Path, metrics: Path, candidates: int | None) -> report.Figure:
    """Draws the loss by step, with ln of the number of candidates if that is chance."""
    rows = [row for row in read_metrics(metrics) if row["loss"] is not None]
    steps = np.array([row["step"] for row in rows])
    losses = np.array([row["loss"] for row in rows])
    path = folder / "loss.png"
    report.draw(
        path,
        lambda ax: plots.loss_curve(steps, {"loss": losses}, num_candidates=candidates, ax=ax),
        width=9.2,
        aspect=0.4,
    )
    chance = "" if candidates is None else " The dashed line is what a collapsed encoder scores."
    return report.Figure(path, f"Loss by step.{chance}")


def heatmaps(
    folder: Path, embeddings: Mapping[str, Pairs], *, rows: str, columns: str, of: str
) -> report.Figure:
    """Draws the cosines of pairs before and after training.

    Args:
      folder: where the file goes.
      embeddings: the pairs to draw, by their time ("before", "after").
      rows: what the first of each pair is.
      columns: what the second is.
      of: what is compared, for the caption.
    """
    path = folder / "similarity.png"
    cosines = {when: np.asarray(cosine_similarity(*z)) for when, z in embeddings.items()}
    matrices(path, cosines, rows=rows, columns=columns, label="cosine")
    return report.Figure(
        path,
        f"Cosines between {of}, none of them seen in training. A row and the column of the same "
        "number belong together: with an encoder that tells them apart, only the diagonal is bright.",
    )


def matrices(
    path: Path, values: Mapping[str, np.ndarray], *, rows: str, columns: str, label: str
) -> None:
    """Draws matrices of values in [-1, 1] side by side, on one colour scale."""

    def panel(when: str) -> Callable[[Any], object]:
        def draw(ax: Any) -> None:
            plots.similarity_heatmap(values[when], title=f"{when} training", ax=ax)
            ax.set(xlabel=columns, ylabel=rows)
            bar = ax.images[0].colorbar
            bar.set_label(label)
            if when != list(values)[-1]:
                bar.remove()

        return draw

    report.draw(path, *map(panel, values), width=4.6, aspect=0.84)
