"""Figures of the study: scores with their intervals, stability by setting, deviations by group."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.uncertainty_study.pieces import Protocol, Records
from experiments.uncertainty_study.record import Record
from experiments.uncertainty_study.statistics import (
    Interval,
    interval,
    of_seeds,
    of_settings,
    zero_shot_mean,
)

# Diverged runs lie far above the others: values above these are drawn here.
_HIGHEST = {"final_loss": 2.0, "norm_variation": 1.2}
_MARKS = ("o", "s", "^", "v", "D", "P", "X")


def draw_all(protocol: Protocol, records: Records, folder: Path) -> dict[str, str]:
    """Draws what there are runs for; returns the caption of each figure by its file name."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {piece.part for piece in records}
    captions = {}
    if "seeds" in parts:
        scores(protocol, records, folder / "scores.svg")
        captions["scores.svg"] = (
            "Test images: every run is a point; bars are means with 95 % intervals over seeds. A mean "
            "below half of the best is written at the lower edge."
        )
        if any(record.deviations for record in records.values()):
            deviations(protocol, records, folder / "deviations.svg")
            captions["deviations.svg"] = (
                "Predicted log deviation of test captions by grade (1 is most general) and of test "
                "images by their number of objects, less the mean of all groups; bars are 95 % "
                "intervals over seeds."
            )
    if "stability" in parts:
        stability(protocol, records, folder / "stability.svg")
        captions["stability.svg"] = (
            "Runs at a range of learning rates and batch sizes: loss at the end as a share of that "
            "of equal embeddings, and variation of the gradient norm; values above 2 (top) or 1.2 "
            "(bottom) are drawn at that limit. A cross marks a run that failed."
        )
    return captions


def scores(protocol: Protocol, records: Records, path: Path) -> None:
    """Draws recall@1, averaged over both ways, and the mean zero-shot accuracy, by loss."""
    shares: dict[str, Callable[[Record], float]] = {
        "recall@1, mean of both ways": lambda record: record.scored.mean_recall(),
        "zero-shot accuracy, mean": zero_shot_mean,
    }

    def panel(ax: Any, title: str) -> None:
        values: dict[str, list[float]] = {loss: [] for loss in protocol.losses}
        for piece, record in records.items():
            if piece.part == "seeds":
                values[piece.loss].append(100 * shares[title](record))
        means = {loss: interval(of_loss) for loss, of_loss in values.items()}
        best = max(mean.mean for mean in means.values() if mean)
        for place, (loss, mean) in enumerate(means.items()):
            if mean is None:
                continue
            colour = _colour(protocol, loss)
            if mean.mean < best / 2:  # its points would flatten the differences of the others
                edge = {"transform": ax.get_xaxis_transform(), "ha": "center"}
                ax.text(place, 0.02, f"{mean.mean:.1f}", color=colour, **edge)
                continue
            ax.plot([place] * len(values[loss]), values[loss], ".", color="0.6", zorder=1)
            _bar(ax, place + 0.2, mean, colour)
        ax.set_xticks(range(len(protocol.losses)), protocol.losses, rotation=30, ha="right")
        ax.set(title=title, ylabel="percent")

    _draw(path, [[lambda ax, title=title: panel(ax, title) for title in shares]], legend=False)


def stability(protocol: Protocol, records: Records, path: Path) -> None:
    """Draws a row for the final loss, one for the gradient norm; a column for each batch size."""
    rows = {"final_loss": "loss at the end / chance", "norm_variation": "gradient-norm variation"}

    def panel(ax: Any, name: str, batch: int) -> None:
        for loss in protocol.losses:
            settings = of_settings(records, loss)
            points = [
                (rate, min(getattr(values, name), _HIGHEST[name]), values.failure)
                for (size, rate), values in sorted(settings.items())
                if size == batch and getattr(values, name) is not None
            ]
            style = {"color": _colour(protocol, loss), "marker": _mark(protocol, loss)}
            ax.plot([p[0] for p in points], [p[1] for p in points], **style, ms=4, label=loss)
            failed = [p for p in points if p[2]]
            ax.plot([p[0] for p in failed], [p[1] for p in failed], "x", color="k", ms=9)
        ax.set(title=f"batch {batch}", xlabel="learning rate", ylabel=rows[name])
        if ax.dataLim.minposx < math.inf:  # an empty axis cannot be logarithmic
            ax.set_xscale("log")

    grid = [
        [lambda ax, n=name, b=batch: panel(ax, n, b) for batch in protocol.stability_batches]
        for name in rows
    ]
    _draw(path, grid, legend=True)


def deviations(protocol: Protocol, records: Records, path: Path) -> None:
    """Draws mean log deviations of captions by grade, and of images by their number of objects."""
    axes = {"by_grade": "grade of the caption", "by_objects": "objects in the image"}

    def panel(ax: Any, kind: str) -> None:
        for number, loss in enumerate(protocol.losses):
            runs = [
                getattr(record.deviations, kind)
                for record in of_seeds(records, loss).values()
                if record.deviations
            ]
            if runs:
                groups = list(runs[0])
                means = [interval(_centred(runs, group)) for group in groups]
                shift = 0.04 * (number - len(protocol.losses) / 2)
                style = {"color": _colour(protocol, loss), "marker": _mark(protocol, loss)}
                ax.errorbar(
                    [int(group) + shift for group in groups],
                    [mean.mean for mean in means if mean],
                    [mean.half or 0.0 for mean in means if mean],
                    **style,
                    ms=4,
                    capsize=2,
                    label=loss,
                )
                ax.set_xticks([int(group) for group in groups])
        ax.axhline(0, color="0.8", zorder=0)
        ax.set(xlabel=axes[kind], ylabel="log deviation, centred")

    _draw(path, [[lambda ax, kind=kind: panel(ax, kind) for kind in axes]], legend=True)


def _centred(runs: Sequence[Mapping[str, float]], group: str) -> list[float]:
    return [run[group] - statistics.fmean(run.values()) for run in runs]


def _bar(ax: Any, place: float, mean: Interval, colour: str) -> None:
    ax.errorbar(place, mean.mean, mean.half or 0.0, fmt="o", color=colour, ms=5, capsize=4)


def _colour(protocol: Protocol, loss: str) -> str:
    return f"C{protocol.losses.index(loss)}"


def _mark(protocol: Protocol, loss: str) -> str:
    return _MARKS[protocol.losses.index(loss) % len(_MARKS)]


def _draw(path: Path, grid: Sequence[Sequence[Callable[[Any], None]]], *, legend: bool) -> None:
    """Writes an SVG file whose bytes only depend on what is drawn."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "jaxcon", "axes.grid": True, "grid.alpha": 0.3}):
        rows, columns = len(grid), len(grid[0])
        size = (3.6 * columns + (1.6 if legend else 0), 3.0 * rows + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for panels, row in zip(grid, axes, strict=True):
            for panel, ax in zip(panels, row, strict=True):
                panel(ax)
        if legend:
            figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center")
        figure.savefig(path, metadata={"Date": None})
