"""Figures as PNG files, and what goes into them: neighbours, and a map of features in the plane."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_DPI = 160  # sharp where a screen has two pixels for one of the page's


@dataclasses.dataclass(frozen=True)
class Figure:
    """A PNG file and the sentence below it."""

    path: Path
    caption: str


def draw(
    path: Path,
    *panels: Callable[[Any], object],
    width: float = 6.4,
    aspect: float = 0.75,
    finish: Callable[[Any, np.ndarray], object] | None = None,
) -> None:
    """Draws panels side by side into one PNG.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     draw(Path(folder) / "line.png", lambda ax: ax.plot([0, 1]))

    Args:
      path: path of the file; its folder is made if missing.
      panels: functions that draw on the matplotlib axes they get, as `jaxcon.plots` does with `ax`.
      width: width of a panel in inches.
      aspect: its height over its width.
      finish: called at the end with the figure and the axes of the panels, for what they share.
    """
    figure, axes = _figure((width * len(panels), aspect * width), (1, len(panels)))
    for panel, ax in zip(panels, axes.flat, strict=True):
        panel(ax)
    if finish is not None:
        finish(figure, axes.reshape(-1))
    _save(figure, path)


def draw_neighbours(path: Path, images: np.ndarray) -> None:
    """Draws a grid of images: in each row a query, then its nearest neighbours.

    Args:
      path: path of the PNG.
      images: uint8 `[queries, 1 + k, height, width, channels]`, k at least 1.
    """
    queries, columns = images.shape[:2]
    figure, axes = _figure((0.9 * columns, 0.95 * queries), (queries, columns))
    for ax, image in zip(axes.flat, images.reshape(-1, *images.shape[2:]), strict=True):
        grey = image.shape[-1] == 1
        ax.imshow(image[..., 0] if grey else image, cmap="gray" if grey else None, vmin=0, vmax=255)
        ax.set_axis_off()
    axes[0, 0].set_title("query", fontsize=9)
    axes[0, 1].set_title("nearest", fontsize=9)
    _save(figure, path)


def nearest_neighbours(features: np.ndarray, queries: Sequence[int], *, k: int = 5) -> np.ndarray:
    """Returns the rows most similar by cosine to each query, the query itself first.

    Example:
      >>> points = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
      >>> nearest_neighbours(points, [0], k=2).tolist()
      [[0, 2, 1]]

    Args:
      features: `[n, dim]`.
      queries: row numbers.
      k: number of neighbours besides the query, fewer than n.

    Returns:
      int `[queries, 1 + k]`.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    similarity = unit[list(queries)] @ unit.T
    similarity[np.arange(len(queries)), list(queries)] = np.inf
    return np.argsort(-similarity, axis=1, kind="stable")[:, : k + 1]


def to_plane(features: np.ndarray) -> np.ndarray:
    """Maps the rows to the plane by t-SNE: neighbours stay neighbours, distances mean little.

    For fewer than four different rows, as from a collapsed encoder, takes the two main directions.

    Example:
      >>> to_plane(np.random.default_rng(0).normal(size=(20, 5))).shape
      (20, 2)

    Args:
      features: `[n, dim]`, n at least 1.

    Returns:
      `[n, 2]`.

    Raises:
      ValueError: if values are not finite.

    Reference:
      van der Maaten and Hinton, Visualizing Data using t-SNE, 2008.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    values = np.asarray(features, np.float32)
    if not np.isfinite(values).all():
        raise ValueError("a map of features: expected finite values, got NaN or infinity")
    values = values - values.mean(0)
    # Rounding is no difference: t-SNE would end the process where it divides by distances of 0.
    size = float(np.abs(features).max(initial=0))
    if len(np.unique(np.round(values / max(size, 1e-30), 5), axis=0)) < 4:
        u, singular, _ = np.linalg.svd(values, full_matrices=False)
        plane = (u * singular)[:, :2]
        return np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))
    values = values / max(float(values.std()), 1e-12)
    perplexity = min(30.0, (len(values) - 1) / 3)
    # On busy cores, threads that wait for each other took 50 s where one takes 1.
    with threadpool_limits(1):
        return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(values)


def _figure(size: tuple[float, float], grid: tuple[int, int]) -> tuple[Any, np.ndarray]:
    """Makes a figure without pyplot: no window system, no state left behind."""
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=size, layout="constrained", dpi=_DPI)
    return figure, figure.subplots(*grid, squeeze=False)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
