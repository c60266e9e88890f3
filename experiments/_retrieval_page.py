"""The end of a run on images and captions: its table on the console, its figures and its page."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import _examples, _figures, _images, _results, _retrieval
from experiments._common import Run, say
from experiments._pairs import DualEncoder, Embedded, Objective, shifted
from experiments._retrieval import Encode, HeldOut, Scores, rank_correlation
from experiments._verdict import CHECKED, verdict
from jaxcon import report
from jaxcon.data.captions import PairDataset, PairSplit
from jaxcon.encoders.tokenizer import Tokenizer
from jaxcon.training.checkpoint import Workdir

_PICTURES, _CAPTIONS = 5, 3  # that are shown of those found
_LONGEST = 160  # characters of a caption on the page


def show(scores: Scores) -> None:
    """Print the table."""
    say(report.format_table(_retrieval.table(scores)))


def conclude(
    workdir: Workdir,
    run: Run,
    dataset: PairDataset,
    *,
    model: DualEncoder,
    objective: Objective,
    tokenizer: Tokenizer,
    title: str,
    seed: int,
    notes: Sequence[str],
    facts: Mapping[str, str],
    settings: Mapping[str, Any],
    temperature: float | None,
    candidates: int | None,
) -> None:
    """Evaluate before and after, mark the run finished, draw, write the page.

    Args:
        workdir: of the run.
        run: what training made.
        dataset: images with captions.
        model: the dual encoder.
        objective: how its embeddings are compared.
        tokenizer: of the captions.
        title: of the page.
        seed: of the views that are shown.
        notes: what is to be said of the loss.
        facts: of `_facts`.
        settings: to list on the page.
        temperature: of a loss that does not learn it, or None.
        candidates: K of the chance level ln K; None where chance is another.
    """
    encode = _retrieval.make_encode(model, tokenizer)
    say("evaluating retrieval")
    scores = {
        "trained": _retrieval.evaluate(encode, run.after, objective, dataset),
        "untrained": _retrieval.evaluate(encode, run.before, objective, dataset),
        "chance": _retrieval.chance(dataset),
    }
    test = _retrieval.held_out(dataset.test)
    images, texts = encode.images(run.after, test.images), encode.texts(run.after, test.captions)
    used = _temperature(run) if temperature is None else temperature
    checked = _examples.spread(len(test.captions), CHECKED)
    judged = verdict(
        images.z[checked], texts.z[checked], used, of="test pairs", total=len(test.captions)
    )
    judged[0] += f" (The loss is clip_loss of these pairs at temperature {used:.2g}.)"
    deviations, sentences = [], []
    if objective.log_std is not None:
        deviations, sentences = _deviations(workdir.figures, encode, run.after, dataset.test)
    results = {"scores": scores, "notes": [*notes, _progress(scores), *judged, *sentences]}
    _results.finish(workdir, results, show)

    page = report.Page(
        title=title,
        summary=_summary(scores, dataset),
        table=_retrieval.table(scores),
        figures=[],
        settings=settings,
        notes=results["notes"],
        facts=facts,
    )
    views = _examples.make_views(shifted, seed=seed)
    drawings: list[_figures.Drawing] = [
        ("views", lambda: _inputs(dataset.train, views)),
        ("loss", lambda: _figures.loss_curve(workdir.figures, workdir.metrics, candidates)),
        (
            "similarity",
            lambda: _heatmaps(workdir.figures, encode, run, dataset.test, (images, texts)),
        ),
        ("pictures", lambda: _pictures(images, texts, objective, test)),
        ("captions", lambda: _captions(images, texts, objective, test)),
        *deviations,
    ]
    _results.write_page(workdir, page, drawings)


def _temperature(run: Run) -> float:
    """The learned temperature, or 0.07: only the loss that the verdict mentions depends on it."""
    learned = run.after["params"].get("Temperature_0")
    return float(np.exp(learned["log_temperature"])) if learned else 0.07


def _summary(scores: Scores, dataset: PairDataset) -> str:
    trained, chance = scores["trained"], scores["chance"]
    return (
        f"Two encoders learned from {len(dataset.train):,} images with captions. Of "
        f"{len(dataset.test):,} test images and as many captions, the right image comes first for "
        f"{trained['text to image, recall@1']:.1%} of the captions, and the right caption for "
        f"{trained['image to text, recall@1']:.1%} of the images; in a random order for "
        f"{chance['text to image, recall@1']:.2%}."
    )


def _progress(scores: Scores) -> str:
    """What the loss alone does not tell.

    >>> name = "text to image, recall@10"
    >>> shares = {"untrained": 0.011, "trained": 0.43, "chance": 0.01}
    >>> _progress({kind: {name: share} for kind, share in shares.items()})
    'In training, text to image, recall@10 went from 1.1% to 43.0% (in a random order: 1.0%).'
    """
    name = [name for name in scores["trained"] if name.startswith("text to image, recall@")][-1]
    before, after, chance = (scores[kind][name] for kind in ("untrained", "trained", "chance"))
    return (
        f"In training, {name} went from {before:.1%} to {after:.1%} "
        f"(in a random order: {chance:.1%})."
    )


def _heatmaps(
    folder: Path, encode: Encode, run: Run, split: PairSplit, after: tuple[Embedded, Embedded]
) -> report.Figure:
    test = _retrieval.held_out(split)
    rows = _examples.spread(len(test.captions), _figures.COMPARED)
    before = (
        encode.images(run.before, _images.take(split.images, rows)).z,
        encode.texts(run.before, [test.captions[i] for i in rows]).z,
    )
    images, texts = after
    return _figures.heatmaps(
        folder,
        {"before": before, "after": (images.z[rows], texts.z[rows])},
        rows="test image",
        columns="caption",
        of=f"{len(rows)} test images and their captions",
    )


def _inputs(split: PairSplit, views: _examples.Views) -> report.Gallery:
    """Training images as they are and as the encoder sees them, with their captions."""
    rows = _examples.spread(len(split), _figures.SHOWN)
    images = _images.take(split.images, rows)
    strips = [
        report.Strip(
            [report.Picture(image), report.Picture(view)],
            after=[_cut(text) for text in split.captions[row][:_CAPTIONS]],
        )
        for row, image, view in zip(rows, images, views(images)[0], strict=True)
    ]
    return report.Gallery(
        strips,
        f"What is learned from: {len(rows)} training images, each once more as the encoder sees it "
        "in a step, and captions of theirs.",
        columns=2,
    )


def _found(queries: Embedded, candidates: Embedded, objective: Objective, k: int) -> np.ndarray:
    """The numbers of the k best candidates of each query, the best one first."""
    scores = np.asarray(objective.scores(queries, candidates))
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def _of_rows(embedded: Embedded, rows: np.ndarray) -> Embedded:
    return Embedded(embedded.z[rows], embedded.log_std[rows])


def _pictures(
    images: Embedded, texts: Embedded, objective: Objective, test: HeldOut
) -> report.Gallery:
    """What captions find."""
    rows = _examples.spread(len(test.captions), _figures.SHOWN)
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


def _captions(
    images: Embedded, texts: Embedded, objective: Objective, test: HeldOut
) -> report.Gallery:
    """What images find."""
    rows = _examples.spread(len(test.captions), _figures.SHOWN)
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
        f"Test images, and the {found.shape[1]} captions that each finds first; its own has a ✓.",
        columns=2,
    )


def _cut(text: str) -> str:
    """A long caption's start; not by words, which Chinese does not divide by blanks."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _deviations(
    folder: Path, encode: Encode, variables: Any, split: PairSplit
) -> tuple[list[_figures.Drawing], list[str]]:
    """The predicted log deviations: of texts by grade, of images by the number of objects.

    Returns:
        How to draw them, and sentences.
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
        return report.Figure(path, "How unsure the encoder says it is, on test pairs.")

    return [("deviations", figure)], notes
