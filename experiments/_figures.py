"""What the pages of all experiments show: curves, matrices, input images, neighbours, a map.

Scores are on disk before anything is drawn, and a figure that fails costs a line, not the run.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import _examples, _images
from experiments._common import say
from jaxcon import plots, report
from jaxcon.data.messages import cut
from jaxcon.data.splits import Dataset, Split
from jaxcon.similarity import cosine_similarity
from jaxcon.training.metrics import read_metrics

Picture = report.Figure | report.Gallery
# A figure's name, for the line where it fails, and what draws it.
Drawing = tuple[str, Callable[[], Picture]]

COMPARED = 32  # pairs in a heat-map: as many as can be told apart
SHOWN = 8  # examples in a gallery
_NEAREST = 5
_MAPPED = 1000  # test images in a map: t-SNE's time grows faster than its use
_LEGEND = 20  # names that a legend holds
_LONGEST = 32  # characters of a name in it


def drawn(drawings: Sequence[Drawing]) -> tuple[list[Picture], list[str]]:
    """Return the figures, and a sentence for each that could not be drawn; they are said as well."""
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
        # Fonts, signs in a user's texts, odd sizes: none of them is worth the end of a run.
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or "no reason was given"
            failures.append(f"The figure {name} is missing: {type(error).__name__}, {reason}.")
            say(failures[-1])
    return figures, failures


def loss_curve(folder: Path, metrics: Path, candidates: int | None) -> report.Figure:
    """Draw the loss by step with ln of the number of candidates, where chance is that."""
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
    folder: Path, embeddings: Mapping[str, _examples.Pairs], *, rows: str, columns: str, of: str
) -> report.Figure:
    """Draw the cosines of pairs before and after training.

    Args:
        folder: for the file.
        embeddings: pairs by the time they are of; those that are drawn.
        rows: what the first ones of the pairs are.
        columns: what the second ones are.
        of: what is compared, for the caption.
    """
    path = folder / "similarity.png"
    cosines = {when: np.asarray(cosine_similarity(*z)) for when, z in embeddings.items()}
    matrices(path, cosines, rows=rows, columns=columns, label="cosine")
    return report.Figure(
        path,
        f"Cosines between {of}, none of them seen in training. A row and the column of the same "
        "number belong together: an encoder that tells them apart has a bright diagonal alone.",
    )


def matrices(
    path: Path, values: Mapping[str, np.ndarray], *, rows: str, columns: str, label: str
) -> None:
    """Draw matrices of values in [-1, 1] side by side, with one scale of colours for all."""

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


def input_views(split: Split, views: _examples.Views, class_names: Any) -> report.Gallery:
    """Show training images, and two views of each as the encoder sees them."""
    rows = _examples.spread(len(split), SHOWN, split.labels)
    images = _images.take(split, rows)
    names = class_texts(split.labels, class_names, rows)
    first, second = views(images)
    return report.Gallery(
        [
            report.Strip(
                [report.Picture(i, n) for i, n in zip(images, names, strict=True)], "image"
            ),
            report.Strip([report.Picture(view) for view in first], "one view"),
            report.Strip([report.Picture(view) for view in second], "another"),
        ],
        f"What is learned from: {len(rows)} training images, and two views of each, drawn anew at "
        "every step. Views of one image are to be alike, those of others are not.",
    )


def neighbours(split: Split, features: np.ndarray, class_names: Any) -> report.Gallery:
    """Show test images, each with those whose features are nearest."""
    rows = _examples.spread(len(split), SHOWN, split.labels)
    nearest = report.nearest_neighbours(features, rows.tolist(), k=min(_NEAREST, len(features) - 1))
    labels = split.labels
    strips = []
    for found in nearest:
        names = class_texts(labels, class_names, found)
        same = [labels is not None and labels[i] == labels[found[0]] for i in found]
        pictures = [
            report.Picture(image, name, framed=bool(alike) and number > 0)
            for number, (image, name, alike) in enumerate(
                zip(_images.take(split, found), names, same, strict=True)
            )
        ]
        strips.append(report.Strip(pictures))
    framed = "" if labels is None else "; those of its class are framed"
    return report.Gallery(
        strips,
        "Test images, in the first column, and right of each its nearest neighbours among the other "
        f"test images by the features of the trained encoder{framed}.",
        columns=2,
    )


def class_texts(labels: np.ndarray | None, class_names: Any, rows: np.ndarray) -> list[str]:
    """Return the names of the classes of some rows; empty where there are none."""
    if labels is None:
        return [""] * len(rows)
    numbers = [int(labels[row]) for row in rows]
    return [str(i) if class_names is None else class_names[i] for i in numbers]


def _legend(names: Sequence[str]) -> tuple[Sequence[str], str]:
    """The names of classes in a figure, and what a caption says of them.

    Of scripts that the figure's font lacks, numbers stand in the figure and names in the caption, which
    is text of the page.

    >>> _legend(["cat", "dog"])
    (['cat', 'dog'], '')
    >>> _legend(["cat", chr(0x732B)])[0]
    ['1', '2']
    """
    names = [cut(name, _LONGEST) for name in names]  # a legend takes its room from the map
    if plots.drawn_by_default().issuperset("".join(names)):
        return names, ""
    numbers = [str(number) for number in range(1, len(names) + 1)]
    told = ", ".join(f"{number} {name}" for number, name in zip(numbers, names, strict=True))
    return numbers, f" ({told})"


def embedding_map(folder: Path, features: Mapping[str, np.ndarray], dataset: Dataset) -> Picture:
    """Draw the test images in the plane, coloured by class, a panel for each set of features."""
    labels = dataset.test.labels
    assert labels is not None
    rows = _examples.spread(len(labels), _MAPPED, labels)
    classes = len(np.unique(labels))
    many = classes > _LEGEND
    names, key = _legend(dataset.class_names or ())

    def panel(kind: str) -> Callable[[Any], object]:
        points = report.to_plane(features[kind][rows])

        def draw(ax: Any) -> None:
            plots.embedding_map(points, labels[rows], class_names=names, title=kind, ax=ax)
            if many or kind != list(features)[-1]:
                ax.get_legend().remove()

        return draw

    path = folder / "embedding.png"
    report.draw(path, *map(panel, features), width=4.6)
    shared = "" if many else key
    if classes > plots.TOLD_APART:
        shared = f", each colour for several of the {classes} classes"
    return report.Figure(
        path,
        f"t-SNE maps of the features of {len(rows):,} test images, coloured by class{shared}: "
        "neighbours stay neighbours, distances mean little.",
    )
