"""The end of a run on images and captions: retrieval, zero-shot scores, figures and the page."""

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

from experiments import _images, _results
from experiments._common import Run, say
from experiments._pairs import DualEncoder, Embedded, Objective
from jaxcon import report
from jaxcon.augment import to_float
from jaxcon.data.captions import PairDataset, PairSplit
from jaxcon.data.drawing import SHAPES
from jaxcon.encoders.tokenizer import Tokenizer
from jaxcon.evaluation.retrieval import chance_recall, recall_at_k
from jaxcon.evaluation.zero_shot import zero_shot_accuracy
from jaxcon.training.checkpoint import Workdir, write_text

_RANKS = (1, 5, 10)
_FRAMES = ("{}", "a picture of {}", "there is {}")
# What is large for a star is not what is large for a square: sizes are asked for by shape.
_PROMPTS = {
    "shape": ("a {}",),
    "colour": ("a {} object",),
    "size": tuple(f"a {{}} {shape}" for shape in SHAPES),
    "position": ("an object at the {}",),
}
_COMPARED = 32  # pairs in the heat-maps
_SHOWN = 8  # rows of the figures of retrieved pictures and captions

Scores = Mapping[str, Mapping[str, float]]


class Encode(NamedTuple):
    """Functions of variables: images, uint8, and texts to what the objective compares."""

    images: Callable[[Any, Any], Embedded]
    texts: Callable[[Any, Sequence[str]], Embedded]


class HeldOut(NamedTuple):
    """Test images, each with one caption, the most specific; equal captions have equal ids."""

    images: Any
    captions: list[str]
    ids: np.ndarray


def make_encode(model: DualEncoder, tokenizer: Tokenizer) -> Encode:
    """Return the two functions, each compiled once for batches of one size."""

    def packed(method: str, inputs: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
        @jax.jit
        def apply(variables: Any, rows: Any) -> Any:
            embedded: Any = model.apply(variables, inputs(rows), method=method)
            log_std = embedded.log_std
            column = jnp.zeros(len(rows)) if log_std is None else log_std
            return jnp.concatenate([embedded.z, column[:, None]], axis=1)

        return apply

    def unpack(rows: np.ndarray) -> Embedded:
        return Embedded(rows[:, :-1], rows[:, -1])

    image, text = packed("embed_images", to_float), packed("embed_texts", lambda tokens: tokens)
    return Encode(
        lambda variables, images: unpack(_images.map_rows(lambda x: image(variables, x), images)),
        lambda variables, texts: unpack(
            _images.map_rows(lambda x: text(variables, x), tokenizer.encode(texts))
        ),
    )


def held_out(split: PairSplit) -> HeldOut:
    """Return the images with their last captions: of the highest grade, where there are grades."""
    captions = [texts[-1] for texts in split.captions]
    ids = np.unique(captions, return_inverse=True)[1]
    return HeldOut(split.images.images, captions, ids)


def evaluate(
    encode: Encode, variables: Any, objective: Objective, dataset: PairDataset
) -> dict[str, float]:
    """Return recall both ways and the zero-shot accuracy of each attribute, on test images."""
    scores, images = _recalls(encode, variables, objective, dataset)
    return scores | _zero_shot(encode, variables, objective, dataset, images)


def recalls(
    encode: Encode, variables: Any, objective: Objective, dataset: PairDataset
) -> dict[str, float]:
    """Return the recall alone, under the keys of `evaluate`."""
    return _recalls(encode, variables, objective, dataset)[0]


def _recalls(
    encode: Encode, variables: Any, objective: Objective, dataset: PairDataset
) -> tuple[dict[str, float], Embedded]:
    """The recalls, and the embedded images."""
    test = held_out(dataset.test)
    images, texts = encode.images(variables, test.images), encode.texts(variables, test.captions)
    scores = {}
    for name, queries, candidates in (
        ("image to text", images, texts),
        ("text to image", texts, images),
    ):
        matrix = np.asarray(objective.scores(queries, candidates))
        for k in _RANKS:
            scores[f"{name}, recall@{k}"] = recall_at_k(matrix, test.ids, test.ids, k=k)
    return scores, images


def _zero_shot(
    encode: Encode, variables: Any, objective: Objective, dataset: PairDataset, images: Embedded
) -> dict[str, float]:
    """The zero-shot accuracies of the embedded images."""
    scores = {}
    for name, labels in dataset.test.attributes.items():
        known = np.flatnonzero(labels >= 0)
        prompts = make_prompts(name, dataset.classes[name])
        of_known = Embedded(images.z[known], images.log_std[known])
        matrix = np.asarray(objective.scores(of_known, encode.texts(variables, prompts)))
        shape = (len(known), len(dataset.classes[name]), len(_PROMPTS[name]), len(_FRAMES))
        fits = matrix.reshape(shape).mean(axis=3).max(axis=2, keepdims=True)
        scores[f"zero-shot {name}"] = zero_shot_accuracy(fits, labels[known])
    return scores


def make_prompts(attribute: str, values: Sequence[str]) -> list[str]:
    """Return the prompts of every value, those of the first value first, each in every frame.

    An image fits a value as well as it fits the best of its prompts, on average over frames.

    >>> make_prompts("colour", ["red", "orange"])[2:4]
    ['there is a red object', 'an orange object']
    """
    nouns = [prompt.format(value) for value in values for prompt in _PROMPTS[attribute]]
    nouns = [noun.replace("a orange", "an orange") for noun in nouns]
    return [frame.format(noun) for noun in nouns for frame in _FRAMES]


def chance(dataset: PairDataset) -> dict[str, float]:
    """Return what a random ranking and a random choice score, under the keys of `evaluate`."""
    ids = held_out(dataset.test).ids
    recalls = {k: chance_recall(ids, ids, k=k) for k in _RANKS}
    ways = ("image to text", "text to image")
    scores = {f"{way}, recall@{k}": recalls[k] for way in ways for k in _RANKS}
    return scores | {f"zero-shot {n}": 1 / len(dataset.classes[n]) for n in dataset.test.attributes}


def table(scores: Scores) -> report.Table:
    """Return the table: a row for each evaluation, chance in the last column."""
    rows = [(name, *(kind[name] for kind in scores.values())) for name in scores["trained"]]
    return report.Table(("on test images", *scores), rows)


def show(workdir: Workdir, scores: Scores) -> None:
    """Print the table and where the page is."""
    say("\n" + report.format_table(table(scores)))
    say(f"\nreport: {workdir.path / 'report.html'}")


def conclude(
    workdir: Workdir,
    run: Run,
    dataset: PairDataset,
    *,
    model: DualEncoder,
    objective: Objective,
    tokenizer: Tokenizer,
    title: str,
    notes: Sequence[str],
    settings: Mapping[str, Any],
    temperature: float | None,
    candidates: int | None,
) -> None:
    """Evaluate before and after, draw, write the page, mark the run finished.

    Args:
        workdir: of the run.
        run: what training made.
        dataset: images with captions.
        model: the dual encoder.
        objective: how its embeddings are compared.
        tokenizer: of the captions.
        title: of the page.
        notes: what is to be said of the loss.
        settings: to list on the page.
        temperature: of a loss that does not learn it, or None.
        candidates: K of the chance level ln K; None where chance is another.
    """
    encode = make_encode(model, tokenizer)
    say("evaluating retrieval")
    scores = {
        "trained": evaluate(encode, run.after, objective, dataset),
        "untrained": evaluate(encode, run.before, objective, dataset),
        "chance": chance(dataset),
    }
    say("drawing figures")
    test = held_out(dataset.test)
    first = _images.take(dataset.test.images, np.arange(min(_COMPARED, len(test.captions))))
    images, texts = encode.images(run.after, test.images), encode.texts(run.after, test.captions)
    pairs = {
        "before": (
            encode.images(run.before, first).z,
            encode.texts(run.before, test.captions[:_COMPARED]).z,
        ),
        "after": (images.z[:_COMPARED], texts.z[:_COMPARED]),
    }
    used = _temperature(run) if temperature is None else temperature
    notes = [
        *notes,
        _progress(scores),
        f"Collapse check on all test pairs. {_results.verdict(images.z, texts.z, used)}, "
        f"that of {len(images.z):,} candidates, by cosines at temperature {used:.2g}.",
    ]
    figures = [
        _results.loss_curve(workdir, candidates),
        _results.heatmaps(
            workdir.figures, pairs, of="{} test images (rows) and their captions (columns)"
        ),
        *_retrieved(workdir.figures, images, texts, objective, test),
    ]
    if objective.log_std is not None:
        uncertain, sentences = _deviations(workdir.figures, encode, run.after, dataset.test)
        figures.append(uncertain)
        notes += sentences
    page = report.Page(
        title=title,
        summary=_summary(scores, dataset),
        table=table(scores),
        figures=figures,
        settings=settings,
        notes=notes,
    )
    report.write_page(workdir.path / "report.html", page)
    write_text(workdir.results, json.dumps({"scores": scores, "notes": notes}, indent=2) + "\n")
    show(workdir, scores)


def _temperature(run: Run) -> float:
    """The learned temperature, or 0.07: only the loss that the verdict mentions depends on it."""
    learned = run.after["params"].get("Temperature_0")
    return float(np.exp(learned["log_temperature"])) if learned else 0.07


def _summary(scores: Scores, dataset: PairDataset) -> str:
    trained, chance = scores["trained"], scores["chance"]
    return (
        f"Trained on {len(dataset.train):,} images with captions. Among {len(dataset.test):,} test "
        f"images, {trained['text to image, recall@1']:.1%} of the captions find their picture "
        f"first, and {trained['image to text, recall@1']:.1%} of the pictures their caption; a "
        f"random ranking finds {chance['text to image, recall@1']:.2%}."
    )


def _progress(scores: Scores) -> str:
    """What the loss alone does not tell.

    >>> name = "text to image, recall@10"
    >>> shares = {"untrained": 0.011, "trained": 0.43, "chance": 0.01}
    >>> _progress({kind: {name: share} for kind, share in shares.items()})
    'Retrieval meanwhile: text to image, recall@10 went from 1.1% to 43.0% (random ranking: 1.0%).'
    """
    name = f"text to image, recall@{_RANKS[-1]}"
    before, after, chance = (scores[kind][name] for kind in ("untrained", "trained", "chance"))
    return (
        f"Retrieval meanwhile: {name} went from {before:.1%} to {after:.1%} "
        f"(random ranking: {chance:.1%})."
    )


def _retrieved(
    folder: Path, images: Embedded, texts: Embedded, objective: Objective, test: HeldOut
) -> list[report.Figure]:
    """What is found first: pictures for captions, and captions for pictures."""
    rows = np.arange(min(_SHOWN, len(test.captions)))

    def best(queries: Embedded, candidates: Embedded, k: int) -> np.ndarray:
        asked = Embedded(queries.z[rows], queries.log_std[rows])
        return np.argsort(-np.asarray(objective.scores(asked, candidates)), axis=1)[:, :k]

    def pixels(numbers: Any) -> np.ndarray:
        return np.stack([test.images[int(number)] for number in numbers])

    found = best(texts, images, 5)
    grid = np.stack([pixels(row) for row in found])
    right = test.ids[found] == test.ids[rows, None]
    for_captions = folder / "pictures.png"
    report.draw(
        for_captions,
        lambda ax: _mosaic(ax, _framed(grid, right), [test.captions[i] for i in rows]),
        width=8,
    )
    told = best(images, texts, 3)
    marks = {True: "✓", False: "·"}
    lines = [
        "\n".join(
            f"{marks[bool(test.ids[i] == test.ids[row])]} "
            + textwrap.shorten(test.captions[i], 100, placeholder="…")
            for i in numbers
        )
        for row, numbers in zip(rows, told, strict=True)
    ]
    for_images = folder / "captions.png"
    report.draw(for_images, lambda ax: _mosaic(ax, pixels(rows)[:, None], lines), width=8)
    return [
        report.Figure(
            for_captions,
            "The five pictures that each caption finds first, best on the left; its own is framed.",
        ),
        report.Figure(for_images, "The three captions that each picture finds first."),
    ]


def _framed(grid: np.ndarray, right: np.ndarray) -> np.ndarray:
    """A bright frame around the right ones, in their own outermost pixels."""
    edge = np.zeros(grid.shape[2:4], bool)
    edge[[0, 1, -2, -1], :] = edge[:, [0, 1, -2, -1]] = True
    return np.where(
        (right[:, :, None, None] & edge)[..., None], np.array([0, 230, 80], np.uint8), grid
    )


def _mosaic(ax: Any, grid: np.ndarray, texts: Sequence[str]) -> None:
    """Draws `grid`, `[rows, columns, side, side, channels]`, with a text beside each row.

    Texts for several pictures stand before them, those for one behind it.
    """
    rows, columns, side = grid.shape[:3]
    padded = np.pad(grid, ((0, 0), (0, 0), (0, 3), (0, 3), (0, 0)), constant_values=255)
    flat = padded.transpose(0, 2, 1, 3, 4).reshape(rows * (side + 3), columns * (side + 3), -1)
    ax.imshow(np.broadcast_to(flat, (*flat.shape[:2], 3)))
    ax.set_xticks([])
    wrapped = [text if "\n" in text else textwrap.fill(text, 38) for text in texts]
    if columns == 1:
        ax.set_anchor("W")  # the rest of the width is for the texts
        ax.yaxis.tick_right()
    ax.set_yticks(np.arange(rows) * (side + 3) + side / 2, wrapped, fontsize=7)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def rank_correlation(values: np.ndarray, groups: np.ndarray) -> float:
    """Return Spearman's coefficient, equal values sharing their mean rank; 0 if all are equal.

    >>> round(rank_correlation(np.array([3.0, 2.0, 2.0]), np.array([1, 2, 3])), 4)
    -0.866
    """
    if not np.ptp(values) or not np.ptp(groups):
        return 0.0
    result: Any = spearmanr(values, groups)
    return float(result.statistic)


def _deviations(
    folder: Path, encode: Encode, variables: Any, split: PairSplit
) -> tuple[report.Figure, list[str]]:
    """The predicted log deviations: of texts by grade, of images by the number of objects."""
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

    def panel(what: str, by: str, log_std: np.ndarray, groups: np.ndarray) -> Any:
        names = np.unique(groups)

        def draw(ax: Any) -> None:
            ax.boxplot([log_std[groups == name] for name in names], tick_labels=names.tolist())
            ax.set(xlabel=f"{by} of the {what}", ylabel="predicted log deviation")

        return draw

    path = folder / "deviations.png"
    report.draw(path, *(panel(*values) for values in panels), width=4.6)
    return report.Figure(path, "How unsure the encoder says it is, on test pairs."), notes
