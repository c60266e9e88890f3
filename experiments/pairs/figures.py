"""Figures of a page on images and captions: inputs, what finds what, how certain embeddings are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.pairs.objectives import Objective
from experiments.pairs.retrieval import Encode, HeldOut, held_out, rank_correlation
from experiments.running.examples import Views, spread, take
from experiments.running.figures import COMPARED, SHOWN, Drawing, heatmaps
from experiments.running.run import Run
from jaxcon import report
from jaxcon.data.captions import PairSplit
from jaxcon.encoders.dual import Embedded

_PICTURES, _CAPTIONS = 5, 3  # how many of those found are shown
_LONGEST = 160  # characters of a caption on the page


def pair_heatmaps(
    folder: Path, encode: Encode, run: Run, split: PairSplit, after: tuple[Embedded, Embedded]
) -> report.Figure:
    """Draws the cosines of some test images and their captions, before and after training."""
    test = held_out(split)
    rows = spread(len(test.captions), COMPARED)
    before = (
        encode.images(run.before, take(split.images, rows)).z,
        encode.texts(run.before, [test.captions[i] for i in rows]).z,
    )
    images, texts = after
    return heatmaps(
        folder,
        {"before": before, "after": (images.z[rows], texts.z[rows])},
        rows="test image",
        columns="caption",
        of=f"{len(rows)} test images and their captions",
    )


def training_pairs(split: PairSplit, views: Views) -> report.Gallery:
    """Shows training images as they are and as the encoder sees them, with their captions."""
    rows = spread(len(split), SHOWN)
    images = take(split.images, rows)
    strips = [
        report.Strip(
            [report.Picture(image), report.Picture(view)],
            after=[_cut(text) for text in split.captions[int(row)][:_CAPTIONS]],
        )
        for row, image, view in zip(rows, images, views(split.images, rows)[0], strict=True)
    ]
    return report.Gallery(
        strips,
        f"What is learned from: {len(rows)} training images, each also as the encoder sees it in a "
        "step, and some of their captions.",
        columns=2,
    )


def _found(queries: Embedded, candidates: Embedded, objective: Objective, k: int) -> np.ndarray:
    """Returns the numbers of the k best candidates for each query, the best one first."""
    scores = np.asarray(objective.scores(queries, candidates))
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def _of_rows(embedded: Embedded, rows: np.ndarray) -> Embedded:
    return Embedded(embedded.z[rows], embedded.log_std[rows])


def pictures_found(
    images: Embedded, texts: Embedded, objective: Objective, test: HeldOut
) -> report.Gallery:
    """Shows the images that captions find."""
    rows = spread(len(test.captions), SHOWN)
    found = _found(_of_rows(texts, rows), images, objective, _PICTURES)
    strips = [
        report.Strip(
            [
                report.Picture(np.asarray(test.images[int(i)]), framed=test.ids[i] == test.ids[row])
                for i in numbers
            ],
            before=_cut(test.captions[row]),
        )
        for row, numbers in zip(rows, found, strict=True)
    ]
    return report.Gallery(
        strips,
        f"Captions of test images, and the {found.shape[1]} test images that each finds first, the "
        "best one on the left; an image that has this caption is framed.",
    )


def captions_found(
    images: Embedded, texts: Embedded, objective: Objective, test: HeldOut
) -> report.Gallery:
    """Shows the captions that images find."""
    rows = spread(len(test.captions), SHOWN)
    found = _found(_of_rows(images, rows), texts, objective, _CAPTIONS)
    strips = [
        report.Strip(
            [report.Picture(np.asarray(test.images[int(row)]))],
            after=[
                f"{'✓' if test.ids[i] == test.ids[row] else '·'} {_cut(test.captions[i])}"
                for i in numbers
            ],
        )
        for row, numbers in zip(rows, found, strict=True)
    ]
    return report.Gallery(
        strips,
        f"Test images, and the {found.shape[1]} captions that each finds first; ✓ marks its own.",
        columns=2,
    )


def _cut(text: str) -> str:
    """Returns the start of a long caption; not cut at words, as Chinese has no spaces between them."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def deviations_drawn(
    folder: Path, encode: Encode, variables: Any, split: PairSplit
) -> tuple[list[Drawing], list[str]]:
    """Describes the predicted log deviations: of texts by grade, of images by number of objects.

    Returns:
      How to draw them, and sentences about them.
    """
    texts = [text for captions in split.captions for text in captions]
    panels = []
    notes = []
    if split.grades is not None:
        grades = np.array([grade for row in split.grades for grade in row])
        panels.append(("caption", "grade", encode.texts(variables, texts).log_std, grades))
    if split.counts is not None:
        log_std = encode.images(variables, split.images.images).log_std
        panels.append(("image", "number of objects", log_std, split.counts))
    if not panels:
        log_std = encode.texts(variables, texts).log_std
        words = np.minimum([len(text.split()) for text in texts], 20)
        panels.append(("caption", "words", log_std, words))
    for what, by, log_std, groups in panels:
        rho = rank_correlation(log_std, groups)
        notes.append(
            f"Rank correlation of the log deviation of a test {what} with its {by}: {rho:+.2f}."
        )

    def panel(
        what: str, by: str, log_std: np.ndarray, groups: np.ndarray
    ) -> Callable[[Any], object]:
        names = np.unique(groups)

        def draw(ax: Any) -> None:
            ax.boxplot([log_std[groups == name] for name in names], tick_labels=names.tolist())
            ax.set(xlabel=f"{by} of the {what}", ylabel="predicted log deviation")

        return draw

    def figure() -> report.Figure:
        path = folder / "deviations.png"
        width = 9.2 / len(panels)
        report.draw(path, *(panel(*values) for values in panels), width=width, aspect=3.4 / width)
        return report.Figure(path, "How uncertain the encoder says it is, on test pairs.")

    return [("deviations", figure)], notes
