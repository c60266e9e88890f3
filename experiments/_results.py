"""The end of a run on images: its table on the console, its figures and its page in the workdir."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _images
from experiments._common import Run, say
from jaxcon import plots, report
from jaxcon.augment import to_float
from jaxcon.data.splits import Dataset
from jaxcon.diagnostics import collapse_report
from jaxcon.similarity import cosine_similarity
from jaxcon.training.checkpoint import Workdir, write_text
from jaxcon.training.loop import read_metrics

Pairs = tuple[np.ndarray, np.ndarray]
# From a folder for figures and pairs of embeddings, before and after, to figures and sentences.
Describe = Callable[[Path, Mapping[str, Pairs]], tuple[Sequence[report.Figure], Sequence[str]]]
_COMPARED = 32  # pairs in a heat-map: as many as can be told apart
_MAPPED = 1000  # test images in a map: t-SNE's time grows faster than its use


def show_if_finished(
    workdir: Workdir, show: Callable[[Workdir, Mapping[str, Any]], None] | None = None
) -> bool:
    """Print the table of a finished run by `show(workdir, scores)`; return whether there is one."""
    if (results := workdir.read_results()) is None:
        return False
    say(f"this run is finished: {workdir.path}")
    (show or _show)(workdir, results["scores"])
    return True


def conclude(
    workdir: Workdir,
    run: Run,
    dataset: Dataset,
    *,
    title: str,
    encode: Callable[[Any, jax.Array], tuple[Any, Any]],
    pairs: Pairs,
    temperature: float,
    settings: Mapping[str, Any],
    candidates: int | None,
    describe: Describe,
) -> None:
    """Evaluate frozen features before and after, draw, write the page, mark the run finished.

    Args:
        workdir: of the run.
        run: what training made.
        dataset: labels may be missing: then the page shows neighbours in place of the table.
        title: of the page.
        encode: from variables and images in [0, 1] to the features that are evaluated, and to the
            embeddings that the loss sees.
        pairs: two views of some test images.
        temperature: of the loss, for the collapse report.
        settings: to list on the page.
        candidates: K of the chance level ln K; None where chance is another.
        describe: what else the page shows.
    """
    jitted = jax.jit(encode)  # one program for all that follows: the same batch, float images

    def outputs(variables: Any, images: np.ndarray) -> tuple[Any, Any]:
        return jitted(variables, to_float(jnp.asarray(images)))

    before, after = functools.partial(outputs, run.before), functools.partial(outputs, run.after)
    kinds = {
        "raw pixels": _images.map_dataset(_images.raw_pixels, dataset),
        "untrained encoder": _images.map_dataset(lambda x: before(x)[0], dataset),
        "trained encoder": _images.map_dataset(lambda x: after(x)[0], dataset),
    }
    scores: dict[str, Any] = {}
    if dataset.class_names is not None:
        say("evaluating frozen features")
        scores = {kind: _images.evaluate(value, dataset) for kind, value in kinds.items()}
    say("drawing figures")
    embeddings = {"before": _embed(before, pairs), "after": _embed(after, pairs)}
    shown = {when: (z1[:_COMPARED], z2[:_COMPARED]) for when, (z1, z2) in embeddings.items()}
    figures, notes = describe(workdir.figures, embeddings)
    page = report.Page(
        title=title,
        summary=_summary(scores, dataset),
        table=_images.evaluation_table(scores) if scores else None,
        figures=[
            loss_curve(workdir, candidates),
            heatmaps(workdir.figures, shown, of="two views of {} test images"),
            *figures,
            _embedding(workdir.figures, kinds, dataset),
        ],
        settings=settings,
        notes=[
            f"Collapse check on test images. {verdict(*embeddings['after'], temperature)}.",
            *notes,
        ],
    )
    report.write_page(workdir.path / "report.html", page)
    write_text(workdir.results, json.dumps({"scores": scores}, indent=2) + "\n")
    _show(workdir, scores)


def _embed(apply: Callable[[Any], tuple[Any, Any]], pairs: Pairs) -> Pairs:
    def embeddings(views: np.ndarray) -> np.ndarray:
        return _images.map_rows(lambda images: apply(images)[1], views)

    return embeddings(pairs[0]), embeddings(pairs[1])


def verdict(z1: np.ndarray, z2: np.ndarray, temperature: float) -> str:
    """Return the collapse report's verdict as the start of a sentence."""
    text = collapse_report(z1, z2, temperature=temperature).verdict
    return text[0].upper() + text[1:]


def loss_curve(workdir: Workdir, candidates: int | None) -> report.Figure:
    """Draw the loss by step with ln of the number of candidates, where chance is that."""
    rows = [row for row in read_metrics(workdir.metrics) if row["loss"] is not None]
    steps = np.array([row["step"] for row in rows])
    losses = np.array([row["loss"] for row in rows])
    path = workdir.figures / "loss.png"
    report.draw(
        path,
        lambda ax: plots.loss_curve(steps, {"loss": losses}, num_candidates=candidates, ax=ax),
    )
    chance = "" if candidates is None else " The dashed line is what a collapsed encoder scores."
    return report.Figure(path, "Loss by step." + chance)


def heatmaps(folder: Path, embeddings: Mapping[str, Pairs], *, of: str) -> report.Figure:
    """Draw the similarities of pairs, a panel for each name; `of` says what they are pairs of."""

    def panel(title: str) -> Callable[[Any], object]:
        similarities = np.asarray(cosine_similarity(*embeddings[title]))
        return lambda ax: plots.similarity_heatmap(similarities, title=title, ax=ax)

    path = folder / "similarity.png"
    report.draw(path, *(panel(title) for title in embeddings), width=4.6)
    return report.Figure(
        path,
        f"Cosine similarities between {of.format(len(embeddings['after'][0]))}, none of them seen "
        "in training: pairs lie on the diagonal.",
    )


def _embedding(
    folder: Path, kinds: Mapping[str, _images.Features], dataset: Dataset
) -> report.Figure:
    labels = dataset.test.labels
    trained = kinds["trained encoder"].test
    if labels is None:
        path, queries = folder / "neighbours.png", range(min(8, len(trained)))
        nearest = report.nearest_neighbours(trained, queries, k=min(6, len(trained) - 1))
        report.draw_neighbours(path, _images.take(dataset.test, nearest))
        return report.Figure(
            path, "Test images and their nearest neighbours among the others, by trained features."
        )

    def panel(kind: str) -> Callable[[Any], object]:
        points = report.to_plane(kinds[kind].test[:_MAPPED])
        return lambda ax: plots.embedding_map(
            points, labels[:_MAPPED], class_names=dataset.class_names, title=kind, ax=ax
        )

    path = folder / "embedding.png"
    report.draw(path, panel("untrained encoder"), panel("trained encoder"), width=4.8)
    return report.Figure(path, "t-SNE maps of the features of test images, coloured by class.")


def _summary(scores: Mapping[str, Mapping[str, Any]], dataset: Dataset) -> str:
    seen = f"{len(dataset.train):,} images seen without labels"
    if not scores:
        return f"Pre-trained on {seen}. The images have no classes, so nothing is scored."
    raw, trained = scores["raw pixels"], scores["trained encoder"]
    return (
        f"Pre-trained on {seen}; then one label a class names {trained['1 label'][0]:.1%} of "
        f"{len(dataset.test):,} test images rightly, where raw pixels reach "
        f"{raw['1 label'][0]:.1%}. With all labels: {trained['linear']:.1%} "
        f"against {raw['linear']:.1%}."
    )


def _show(workdir: Workdir, scores: Mapping[str, Any]) -> None:
    say("")
    if scores:
        say(report.format_table(_images.evaluation_table(scores)))
    else:
        say("no labels: the report shows nearest neighbours in place of an evaluation")
    say(f"\nreport: {workdir.path / 'report.html'}")
