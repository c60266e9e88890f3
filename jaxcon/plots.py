"""The pictures of contrastive learning: similarity heat-map, loss curve, spectrum, embeddings.

Each function draws on ``ax`` if one is given, else on a new figure, and returns the figure. matplotlib
is imported inside, and never through pyplot: no window, no global state.

>>> import numpy as np
>>> from jaxcon import plots
>>> figure = plots.similarity_heatmap(np.eye(4))
>>> figure.savefig("/dev/null", format="png")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxcon.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure, SubFigure


def similarity_heatmap(
    similarities: ArrayLike,
    *,
    title: str = "",
    limits: tuple[float, float] = (-1.0, 1.0),
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Figure | SubFigure:
    """The matrix of all similarities of a batch: a healthy one has a bright diagonal on a dark ground.

    Args:
      similarities: ``[n, m]``, such as ``similarity.cosine_similarity(z1, z2)``.
      title: of the axes.
      limits: the similarities at both ends of the colour scale. They are fixed, not taken from the
        data: stretched to its own range, the noise of a collapsed batch would look like structure.
      row_labels, column_labels: texts beside the rows and below the columns.
      ax: where to draw.

    Raises:
      ValueError: if ``similarities`` is not a matrix.
    """
    matrix = np.asarray(similarities, np.float32)
    if matrix.ndim != 2:
        raise ValueError(f"similarities must be a matrix [n, m], got shape {matrix.shape}")
    ax = _axes(ax, (5.2, 4.4))
    image = ax.imshow(matrix, vmin=limits[0], vmax=limits[1], cmap="magma", interpolation="nearest")
    ax.set(title=title, xlabel="z2", ylabel="z1")
    _count_whole(ax.xaxis, ax.yaxis)
    if row_labels is not None:
        ax.set_yticks(range(len(row_labels)), row_labels, fontsize="small", parse_math=False)
    if column_labels is not None:
        ticks = range(len(column_labels))
        ax.set_xticks(ticks, column_labels, rotation=90, fontsize="small", parse_math=False)
    if matrix.size <= 100:
        for (i, j), value in np.ndenumerate(matrix):
            bright = value > (limits[0] + limits[1]) / 2
            color = "black" if bright else "white"
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", color=color, fontsize="x-small")
    ax.figure.colorbar(image, ax=ax, label="similarity")
    return ax.figure


def loss_curve(
    steps: ArrayLike,
    values: Mapping[str, ArrayLike],
    *,
    num_candidates: int | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Figure | SubFigure:
    """Losses against steps, with the level of chance, ln K, as a dashed line.

    Args:
      steps: ``[t]``.
      values: curves by name, each ``[t]``.
      num_candidates: K; None draws no chance level.
      title, ax: as in :func:`similarity_heatmap`.
    """
    ax = _axes(ax, (6.4, 3.6))
    marker = "o" if len(np.asarray(steps)) == 1 else None  # no line leads to a single point
    for name, curve in values.items():
        ax.plot(np.asarray(steps), np.asarray(curve), label=name, linewidth=1.2, marker=marker)
    if num_candidates is not None:
        label = f"chance, ln {num_candidates}"
        ax.axhline(np.log(num_candidates), color="grey", linestyle="--", label=label)
    ax.set(title=title, xlabel="step", ylabel="loss")
    _count_whole(ax.xaxis)
    ax.legend(frameon=False)
    ax.grid(alpha=0.3)
    return ax.figure


def spectrum(
    embeddings: Mapping[str, ArrayLike], *, title: str = "", ax: Axes | None = None
) -> Figure | SubFigure:
    """Singular values of the centred rows, largest first: where the line falls, dimensions are unused.

    Args:
      embeddings: ``[n, dim]`` each, by name.
      title, ax: as in :func:`similarity_heatmap`.
    """
    ax = _axes(ax, (6.4, 3.6))
    for name, z in embeddings.items():
        rows = np.asarray(z, np.float64).reshape(len(np.asarray(z)), -1)
        singular = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
        ax.semilogy(np.arange(1, len(singular) + 1), np.maximum(singular, 1e-12), label=name)
    ax.set(title=title, xlabel="direction", ylabel="singular value")
    _count_whole(ax.xaxis)
    ax.legend(frameon=False)
    ax.grid(alpha=0.3)
    return ax.figure


def embedding_map(
    points: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    class_names: Sequence[str] | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Figure | SubFigure:
    """Embeddings projected to the plane, coloured by class.

    Args:
      points: ``[n, 2]``.
      labels: int ``[n]``, or None for one colour.
      class_names: names in the legend, as they are; None prints the labels.
      title, ax: as in :func:`similarity_heatmap`.

    Raises:
      ValueError: if the points are not of the plane.
    """
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points must be [n, 2], got shape {points.shape}")
    ax = _axes(ax, (5.6, 4.8))
    groups = [(None, np.ones(len(points), bool))]
    if labels is not None:
        labels = np.asarray(labels)
        groups = [(label, labels == label) for label in np.unique(labels)]
    for label, rows in groups:
        color = None if label is None else _color(label)
        ax.scatter(*points[rows].T, s=8, label=None if label is None else str(label), color=color)
    if labels is not None:
        legend = ax.legend(frameon=False, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5))
        # matplotlib leaves out names that begin with "_", and takes dollars for mathematics.
        for text, label in zip(legend.get_texts(), np.unique(labels), strict=True):
            text.set_text(str(label) if class_names is None else class_names[int(label)])
            text.set_parse_math(False)
    ax.set(title=title, xticks=[], yticks=[])
    return ax.figure


def _color(label: int) -> tuple[float, ...]:
    from matplotlib import colormaps

    return colormaps["tab10" if label < 10 else "tab20"](int(label) % 20)


def _count_whole(*axes: Axis) -> None:
    """Ticks of what is counted: rows, steps and directions have no halves."""
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained").subplots()
