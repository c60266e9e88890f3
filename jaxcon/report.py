"""A run's table, figures and page: rows and arrays in, text and files out.

The page is one file that needs no other and no network: figures are inlined, there is no script.

>>> table = Table(("features", "linear", "kNN"), [("raw pixels", 0.975, 0.961)])
>>> print(format_table(table))
features    linear    kNN
raw pixels   97.5%  96.1%
"""

import base64
import dataclasses
import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# A share, a share with its standard deviation, or words.
Cell = float | tuple[float, float] | str | None


@dataclasses.dataclass(frozen=True)
class Table:
    """A heading and rows; a number is shown as a percentage, a pair as mean ± deviation."""

    heading: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A PNG file and the sentence below it."""

    path: Path
    caption: str


@dataclasses.dataclass(frozen=True)
class Page:
    """What a report shows, from top to bottom."""

    title: str
    summary: str
    table: Table | None
    figures: Sequence[Figure]
    settings: Mapping[str, Any]
    notes: Sequence[str] = ()


def format_cell(cell: Cell) -> str:
    """Return a cell as text.

    >>> format_cell(0.5), format_cell((0.831, 0.02)), format_cell(None)
    ('50.0%', '83.1 ± 2.0%', '–')

    Args:
        cell: share, (mean, standard deviation), words or None.

    Returns:
        Text.
    """
    if cell is None:
        return "–"  # noqa: RUF001
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int | float):
        return f"{100 * cell:.1f}%"
    return f"{100 * cell[0]:.1f} ± {100 * cell[1]:.1f}%"


def format_table(table: Table) -> str:
    """Return the table for a terminal: first column to the left, the others to the right.

    Args:
        table: heading and rows of equal length.

    Returns:
        Lines without a last newline.
    """
    lines = [list(table.heading), *([format_cell(cell) for cell in row] for row in table.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.heading))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if column else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def write_page(path: Path, page: Page) -> None:
    """Write the page as one self-contained HTML file.

    Args:
        path: of the file.
        page: what it shows; its figures' files must exist.
    """
    body = [
        f"<h1>{html.escape(page.title)}</h1>",
        f'<p class="summary">{html.escape(page.summary)}</p>',
        _table_html(page.table) if page.table else "",
        *(f"<p>{html.escape(note)}</p>" for note in page.notes),
        "<section>",
        *(_figure_html(figure) for figure in page.figures),
        "</section>",
        "<h2>Settings</h2>",
        _settings_html(page.settings),
    ]
    path.write_text(
        _PAGE.format(title=html.escape(page.title), body="\n".join(body)), encoding="utf-8"
    )


def draw(path: Path, *panels: Callable[[Any], object], width: float = 6.4) -> None:
    """Draw panels side by side into one PNG.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     draw(Path(folder) / "line.png", lambda ax: ax.plot([0, 1]))

    Args:
        path: of the file; its folder is made where it is missing.
        panels: each draws on the matplotlib axes that it gets, as `jaxcon.plots` does with `ax`.
        width: of a panel in inches.
    """
    figure, axes = _figure((width * len(panels), 0.75 * width), (1, len(panels)))
    for panel, ax in zip(panels, axes.flat, strict=True):
        panel(ax)
    _save(figure, path)


def draw_neighbours(path: Path, images: np.ndarray) -> None:
    """Draw a grid of images: in each row a query, then its nearest neighbours.

    Args:
        path: of the PNG.
        images: uint8 `[queries, 1 + k, height, width, channels]`, k at least 1.
    """
    queries, columns = images.shape[:2]
    figure, axes = _figure((0.9 * columns, 0.95 * queries), (queries, columns))
    for ax, image in zip(axes.flat, images.reshape(-1, *images.shape[2:]), strict=True):
        ax.imshow(image.squeeze(), cmap="gray" if image.shape[-1] == 1 else None)
        ax.set_axis_off()
    axes[0, 0].set_title("query", fontsize=9)
    axes[0, 1].set_title("nearest", fontsize=9)
    _save(figure, path)


def nearest_neighbours(features: np.ndarray, queries: Sequence[int], *, k: int = 5) -> np.ndarray:
    """Return the rows most similar by cosine to each query, the query itself first.

    >>> points = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
    >>> nearest_neighbours(points, [0], k=2).tolist()
    [[0, 2, 1]]

    Args:
        features: `[n, dim]`.
        queries: row numbers.
        k: neighbours besides the query, fewer than n.

    Returns:
        int `[queries, 1 + k]`.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    similarity = unit[list(queries)] @ unit.T
    similarity[np.arange(len(queries)), list(queries)] = np.inf
    return np.argsort(-similarity, axis=1, kind="stable")[:, : k + 1]


def to_plane(features: np.ndarray) -> np.ndarray:
    """Return a t-SNE map of the rows: neighbours stay neighbours, distances mean little.

    >>> to_plane(np.random.default_rng(0).normal(size=(20, 5))).shape
    (20, 2)

    Args:
        features: `[n, dim]`, n at least 4.

    Returns:
        `[n, 2]`.

    Reference:
        van der Maaten and Hinton, Visualizing Data using t-SNE, 2008.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    values = np.asarray(features, np.float32)
    values = (values - values.mean(0)) / max(float(values.std()), 1e-12)
    perplexity = min(30.0, (len(values) - 1) / 3)
    # On busy cores, threads that wait for each other took 50 s where one takes 1.
    with threadpool_limits(1):
        return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(values)


def _figure(size: tuple[float, float], grid: tuple[int, int]) -> tuple[Any, np.ndarray]:
    """A figure without pyplot: no window system, no state left behind."""
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=size, layout="constrained", dpi=110)
    return figure, figure.subplots(*grid, squeeze=False)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _table_html(table: Table) -> str:
    def line(cells: Sequence[Cell], tag: str) -> str:
        texts = (html.escape(format_cell(cell)) for cell in cells)
        return "<tr>" + "".join(f"<{tag}>{text}</{tag}>" for text in texts) + "</tr>"

    rows = "\n".join(line(row, "td") for row in table.rows)
    return (
        '<div class="scroll"><table>\n'
        f"<thead>{line(list(table.heading), 'th')}</thead>\n<tbody>{rows}</tbody>\n</table></div>"
    )


def _figure_html(figure: Figure) -> str:
    data = base64.b64encode(figure.path.read_bytes()).decode()
    caption = html.escape(figure.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _settings_html(settings: Mapping[str, Any]) -> str:
    items = "\n".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd></div>"
        for name, value in settings.items()
        if value is not None
    )
    return f"<dl>{items}</dl>"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 64rem; padding: 1.5rem 1rem 3rem; background: #fff;
  color: #1f2937; font: 16px/1.55 system-ui, sans-serif; }}
h1 {{ font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; }}
h2 {{ font-size: 1.15rem; margin: 2rem 0 .5rem; }}
.summary {{ font-size: 1.1rem; max-width: 46rem; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .45rem .9rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #e5e7eb; }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; }}
th {{ font-weight: 600; color: #4b5563; }}
tbody tr:last-child {{ font-weight: 600; }}
figure {{ margin: 1.75rem 0 0; }}
img {{ display: block; max-width: 100%; height: auto; }}
figcaption {{ color: #4b5563; font-size: .92rem; margin-top: .4rem; }}
dl {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .4rem 1rem;
  margin: 0; font-size: .92rem; }}
dt {{ color: #4b5563; }}
dd {{ margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }}
@media (max-width: 40rem) {{
  table {{ font-size: .85rem; }}
  th, td:first-child {{ white-space: normal; }}
  th, td {{ padding: .4rem .35rem; }}
}}
</style>
</head>
<body>
{body}
</body>
</html>
"""
