"""Figures of a page on images: training images and their views, neighbours, a map of the classes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.running.examples import Views, spread, take
from experiments.running.figures import SHOWN, Picture
from jaxcon import plots, report
from jaxcon.data.messages import cut
from jaxcon.data.splits import Dataset, Split

_NEAREST = 5
MAPPED = 1000  # test images in a map; more would mostly take more time
_LEGEND = 20  # most names in a legend
_LONGEST = 32  # most characters of a name in it


def input_views(split: Split, views: Views, class_names: Any) -> report.Gallery:
    """Shows training images, and two views of each as the encoder sees them."""
    rows = spread(len(split), SHOWN, split.labels)
    images = take(split, rows)
    names = class_texts(split.labels, class_names, rows)
    first, second = views(split, rows)
    return report.Gallery(
        [
            report.Strip(
                [report.Picture(i, n) for i, n in zip(images, names, strict=True)], "image"
            ),
            report.Strip([report.Picture(view) for view in first], "one view"),
            report.Strip([report.Picture(view) for view in second], "another"),
        ],
        f"What is learned from: {len(rows)} training images, and two views of each, drawn anew at "
        "every step. Views of one image should be alike, those of different images should not.",
    )


def neighbours(split: Split, features: np.ndarray, class_names: Any) -> report.Gallery:
    """Shows test images, each with those whose features are nearest."""
    rows = spread(len(split), SHOWN, split.labels)
    nearest = report.nearest_neighbours(features, rows.tolist(), k=min(_NEAREST, len(features) - 1))
    labels = split.labels
    strips = []
    for found in nearest:
        names = class_texts(labels, class_names, found)
        same = [labels is not None and labels[i] == labels[found[0]] for i in found]
        pictures = [
            report.Picture(image, name, framed=bool(alike) and number > 0)
            for number, (image, name, alike) in enumerate(
                zip(take(split, found), names, same, strict=True)
            )
        ]
        strips.append(report.Strip(pictures))
    framed = "" if labels is None else "; those of its class are framed"
    return report.Gallery(
        strips,
        "Test images, in the first column, and to the right of each its nearest neighbours among the "
        f"other test images by the features of the trained encoder{framed}.",
        columns=2,
    )


def class_texts(labels: np.ndarray | None, class_names: Any, rows: np.ndarray) -> list[str]:
    """Returns the names of the classes of some rows; empty if there are none."""
    if labels is None:
        return [""] * len(rows)
    numbers = [int(labels[row]) for row in rows]
    return [str(i) if class_names is None else class_names[i] for i in numbers]


def _legend(names: Sequence[str]) -> tuple[Sequence[str], str]:
    """Returns the names of classes in a figure, and what the caption says about them.

    If the figure's font lacks their script, the figure has numbers, and the caption, which is text of
    the page, has the names.

    Example:
      >>> _legend(["cat", "dog"])
      (['cat', 'dog'], '')
      >>> _legend(["cat", chr(0x732B)])[0]
      ['1', '2']
    """
    names = [cut(name, _LONGEST) for name in names]  # the legend takes space from the map
    if plots.drawn_by_default().issuperset("".join(names)):
        return names, ""
    numbers = [str(number) for number in range(1, len(names) + 1)]
    told = ", ".join(f"{number} {name}" for number, name in zip(numbers, names, strict=True))
    return numbers, f" ({told})"


def embedding_map(folder: Path, features: Mapping[str, np.ndarray], dataset: Dataset) -> Picture:
    """Draws the test images in the plane, coloured by class, a panel for each set of features."""
    labels = dataset.test.labels
    assert labels is not None
    rows = spread(len(labels), MAPPED, labels)
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
