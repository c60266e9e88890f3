"""Plots for contrastive learning: similarity heat map, loss curve, spectrum, embedding map.

Each function draws on `ax` if one is given, else on a new figure, and returns the figure. matplotlib
is imported inside, never through pyplot: no window, no global state. Text is drawn literally: a dollar
sign starts no formula, and letters that the default font lacks are taken from an installed one.

>>> import numpy as np
>>> from jaxcon import plots
>>> figure = plots.similarity_heatmap(np.eye(4))
>>> figure.savefig("/dev/null", format="png")
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcon.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.text import Text

_MARKERS = "osDv^P*"
TOLD_APART = 20 * len(_MARKERS)  # so many classes differ in colour or marker


def similarity_heatmap(
    similarities: ArrayLike,
    *,
    title: str = "",
    limits: tuple[float, float] = (-1.0, 1.0),
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Figure | SubFigure:
    """Plots all similarities of a batch: a healthy one has a bright diagonal on a dark ground.

    Args:
      similarities: `[n, m]`, such as `similarity.cosine_similarity(z1, z2)`.
      title: the title of the axes.
      limits: the similarities at both ends of the colour scale. They are fixed, not taken from the
        data: stretched to its own range, the noise of a collapsed batch would look like structure.
      row_labels, column_labels: text next to the rows and below the columns.
      ax: the axes to draw on; None makes a new figure.

    Raises:
      ValueError: if `similarities` is not a matrix.
    """
    matrix = np.asarray(similarities, np.float32)
    if matrix.ndim != 2:
        raise ValueError(f"similarities must be a matrix [n, m], got shape {matrix.shape}")
    ax = _axes(ax, (5.2, 4.4))
    image = ax.imshow(matrix, vmin=limits[0], vmax=limits[1], cmap="magma", interpolation="nearest")
    ax.set(title=title, xlabel="z2", ylabel="z1")
    _count_whole(ax.xaxis, ax.yaxis)
    if row_labels is not None:
        ax.set_yticks(range(len(row_labels)), row_labels, fontsize="small")
    if column_labels is not None:
        ticks = range(len(column_labels))
        ax.set_xticks(ticks, column_labels, rotation=90, fontsize="small")
    if matrix.size <= 100:
        for (i, j), value in np.ndenumerate(matrix):
            bright = value > (limits[0] + limits[1]) / 2
            color = "black" if bright else "white"
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", color=color, fontsize="x-small")
    ax.figure.colorbar(image, ax=ax, label="similarity")
    labels = [*ax.get_yticklabels(), *ax.get_xticklabels()]
    _as_texts(ax, labels if row_labels is not None or column_labels is not None else [])
    return ax.figure


def loss_curve(
    steps: ArrayLike,
    values: Mapping[str, ArrayLike],
    *,
    num_candidates: int | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Figure | SubFigure:
    """Plots losses against steps, with the chance level, ln K, as a dashed line.

    Args:
      steps: `[t]`.
      values: curves by name, each `[t]`.
      num_candidates: K; None leaves out the chance level.
      title, ax: as in `similarity_heatmap`.
    """
    ax = _axes(ax, (6.4, 3.6))
    marker = "o" if len(np.asarray(steps)) == 1 else None  # a single point makes no line
    drawn = {}
    for name, curve in values.items():
        line = ax.plot(np.asarray(steps), np.asarray(curve), linewidth=1.2, marker=marker)
        (drawn[name],) = line
    if num_candidates is not None:
        chance = ax.axhline(np.log(num_candidates), color="grey", linestyle="--")
        drawn[f"chance, ln {num_candidates}"] = chance
    ax.set(title=title, xlabel="step", ylabel="loss")
    _count_whole(ax.xaxis)
    _legend(ax, drawn.items())
    ax.grid(alpha=0.3)
    _as_texts(ax)
    return ax.figure


def spectrum(
    embeddings: Mapping[str, ArrayLike], *, title: str = "", ax: Axes | None = None
) -> Figure | SubFigure:
    """Plots the singular values of the centred rows; where they drop, dimensions go unused.

    Args:
      embeddings: arrays `[n, dim]` by name.
      title, ax: as in `similarity_heatmap`.

    Raises:
      ValueError: for embeddings without rows, or that are not finite.
    """
    ax = _axes(ax, (6.4, 3.6))
    drawn = {}
    for name, z in embeddings.items():
        rows = np.asarray(z, np.float64)
        if rows.ndim < 2 or not rows.size:
            raise ValueError(f"{name}: expected [n, dim], at least one row, got shape {rows.shape}")
        rows = rows.reshape(len(rows), -1)
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise ValueError(
                f"{name}: {len(bad)} of {len(rows)} rows hold NaN or infinity, "
                f"the first is row {bad[0]}"
            )
        singular = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
        directions = np.arange(1, len(singular) + 1)
        (drawn[name],) = ax.semilogy(directions, np.maximum(singular, 1e-12))
    ax.set(title=title, xlabel="direction", ylabel="singular value")
    _count_whole(ax.xaxis)
    _legend(ax, drawn.items())
    ax.grid(alpha=0.3)
    _as_texts(ax)
    return ax.figure


def embedding_map(
    points: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    class_names: Sequence[str] | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Figure | SubFigure:
    """Plots embeddings projected to the plane, coloured by class.

    There are 20 colours, repeated with other markers: no two of 140 classes look alike. Rows with a
    negative label, which means no label, are grey.

    Args:
      points: `[n, 2]`.
      labels: int `[n]`, or None for one colour.
      class_names: names in the legend, by label; the label itself is shown if there is no name for it.
      title, ax: as in `similarity_heatmap`.

    Raises:
      ValueError: if the points are not two-dimensional, or labels are not one whole number per point.
    """
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points must be [n, 2], got shape {points.shape}")
    ax = _axes(ax, (5.6, 4.8))
    if labels is None:
        ax.scatter(*points.T, s=8)
    else:
        labels = _as_labels(labels, len(points))
        classes = [int(label) for label in np.unique(labels)]
        # By label, so that a class looks the same in other maps; by rank where labels are too large.
        styles = classes if max(classes, default=0) < TOLD_APART else range(len(classes))
        drawn = []
        for label, style in zip(classes, styles, strict=True):
            known = class_names is not None and 0 <= label < len(class_names)
            name = class_names[label] if known else str(label)  # pyright: ignore
            of_class = points[labels == label].T
            drawn.append((name, ax.scatter(*of_class, s=8, **_style(label, style))))
        _legend(ax, drawn, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5))
    ax.set(title=title, xticks=[], yticks=[])
    _as_texts(ax)
    return ax.figure


def _as_labels(labels: ArrayLike, points: int) -> np.ndarray:
    array = np.asarray(labels)
    if array.shape != (points,):
        raise ValueError(f"labels must be one per point, [{points}], got shape {array.shape}")
    if array.size and (array.dtype.kind not in "iubf" or (array != np.floor(array)).any()):
        raise ValueError(
            f"labels must be whole numbers (class_names gives them names), got {array!r:.80}"
        )
    return array


def _legend(ax: Axes, drawn: Iterable[tuple[str, Any]], **settings: Any) -> None:
    """Draws a legend, with the names beginning with an underscore that matplotlib would leave out."""
    names, artists = zip(*drawn, strict=True) if drawn else ((), ())
    if names:
        legend = ax.legend(artists, [str(i) for i in range(len(names))], frameon=False, **settings)
        for text, artist, name in zip(legend.get_texts(), artists, names, strict=True):
            text.set_text(name)
            artist.set_label(name)  # for a legend of several axes


def _style(label: int, number: int) -> dict[str, Any]:
    """Returns colour and marker: ten strong colours, ten pale ones, then the same with new markers."""
    from matplotlib import colormaps

    if label < 0:
        return {"color": "0.6", "marker": "x"}
    colour = number % 20
    return {
        "color": colormaps["tab20"](2 * (colour % 10) + colour // 10),
        "marker": _MARKERS[number // 20 % len(_MARKERS)],
    }


def _as_texts(ax: Axes, more: Iterable[Text] = ()) -> None:
    """Makes title, axis names, legend and further text draw letter by letter.

    Number ticks are left out: those of a logarithmic axis are formulas.
    """
    legend = ax.get_legend()
    texts = [
        ax.title,
        ax.xaxis.label,
        ax.yaxis.label,
        *(legend.get_texts() if legend else ()),
        *more,
    ]
    for text in texts:
        text.set_parse_math(False)
        beyond = frozenset(text.get_text()) - drawn_by_default()
        if beyond:
            text.set_fontfamily([*text.get_fontfamily(), *_families(beyond)])


@functools.cache
def drawn_by_default() -> frozenset[str]:
    """Returns the letters of matplotlib's default font."""
    from matplotlib.font_manager import FontProperties, findfont

    return _letters(findfont(FontProperties())) | {"\n"}


@functools.cache
def _families(letters: frozenset[str]) -> tuple[str, ...]:
    """Returns installed fonts that have these letters; warns of those that none has."""
    from matplotlib.font_manager import fontManager

    families, left = [], set(letters)
    for font in sorted(fontManager.ttflist, key=lambda font: (font.style, font.weight != 400)):
        last_resort = "lastresort" in font.fname.lower()  # boxes that name the script
        if left and not last_resort and (found := left & _letters(font.fname)):
            families.append(font.name)
            left -= found
    if left:
        warnings.warn(
            f"no installed font has {''.join(sorted(left)[:20])!r}: drawn as boxes; a font of the Noto "
            "family has these characters",
            stacklevel=2,
        )
    return tuple(families)


def _letters(file: str) -> frozenset[str]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(file).get_charmap()))
    except (OSError, RuntimeError):  # a font that is gone, or no font at all
        return frozenset()


def _count_whole(*axes: Axis) -> None:
    """Puts ticks at whole numbers only: rows, steps and directions have no halves."""
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained").subplots()
