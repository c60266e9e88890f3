"""Curves of runs that begin nearly collapsed, as a file, a figure and a table."""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.running import markdown

Curve = Sequence[float]


@dataclasses.dataclass(frozen=True)
class Curves:
    """What one run measured.

    Attributes:
      loss: N-pairs loss at temperature 1 as a share of chance, step by step.
      mean_cosine: mean cosine between different images, step by step.
      accuracy: share of views that find their pair, step by step.
      effective_rank: effective rank of the embeddings at the end.
    """

    loss: Curve
    mean_cosine: Curve
    accuracy: Curve
    effective_rank: float

    def as_json(self, every: int) -> dict[str, Curve]:
        """Returns one in `every` points of the curves, by their names in collapse.json."""
        return {
            "accuracy": self.accuracy[::every],
            "loss over chance": self.loss[::every],
            "mean cosine": self.mean_cosine[::every],
            "effective rank": [self.effective_rank],
        }


Runs = Mapping[str, Mapping[str, Curves]]  # by objective, then by optimizer


def write(output: Path, runs: Runs, settings: Mapping[str, Any]) -> str:
    """Writes collapse.json and the figure, puts the table into the page if there is one; returns it.

    Args:
      output: folder of collapse.json, collapse.md and figures/collapse.svg.
      runs: runs with the same optimizers for each objective.
      settings: settings of all runs, with their `steps`.
    """
    output.mkdir(parents=True, exist_ok=True)
    every = max(1, settings["steps"] // 100)  # a hundred points per curve
    curves = {
        objective: {optimizer: run.as_json(every) for optimizer, run in by_optimizer.items()}
        for objective, by_optimizer in runs.items()
    }
    content = {"settings": settings, "every": every, "curves": curves}
    (output / "collapse.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
    draw(runs, output / "figures" / "collapse.svg")
    text = table(runs)
    if (page := output / "collapse.md").exists():
        markdown.insert(page, text)
    return text


def table(runs: Runs) -> str:
    """Returns the table in Markdown, a row for each run."""
    heading = [
        "objective",
        "optimizer",
        "steps until the mean cosine is below 0.5",
        "mean cosine at the end",
        "loss / ln N",
        "finds its pair",
        "effective rank, of 32",
    ]
    rows = []
    for objective, by_optimizer in runs.items():
        for optimizer, run in by_optimizer.items():
            left = next((i for i, cosine in enumerate(run.mean_cosine) if cosine < 0.5), None)
            cells = [
                "never" if left is None else str(left),
                f"{run.mean_cosine[-1]:.3f}",
                f"{run.loss[-1]:.3f}",
                f"{np.mean(run.accuracy[-20:]):.0%}",
                f"{run.effective_rank:.1f}",
            ]
            rows.append([objective, optimizer, *cells])
    return markdown.table(heading, rows)


def draw(runs: Runs, path: Path) -> None:
    """Draws mean cosine against step, a panel for each optimizer."""
    import matplotlib
    from matplotlib.figure import Figure

    optimizers = list(next(iter(runs.values())))
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = figure.subplots(1, len(optimizers), sharey=True)
    for ax, optimizer in zip(panels, optimizers, strict=True):
        styles = itertools.cycle(("-", "--", "-.", ":"))
        for objective, by_optimizer in runs.items():
            curve = by_optimizer[optimizer].mean_cosine
            steps = range(1, len(curve) + 1)
            ax.semilogx(steps, curve, label=objective, linewidth=1.4, linestyle=next(styles))
        ax.set(title=optimizer, xlabel="step, from 1", ylim=(-0.05, 1.05))
        ax.grid(alpha=0.3)
    figure.axes[0].set_ylabel("mean cosine of different images")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center")
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "jaxcon"}):  # the same curves, the same bytes
        figure.savefig(path, metadata={"Date": None})
