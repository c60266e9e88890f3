"""The end of a run on images: its table on the console, its figures and its page in the workdir."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments.images.evaluation import (
    Accuracies,
    ahead,
    evaluate,
    evaluation_table,
    map_dataset,
    pixels_name,
    raw_pixels,
)
from experiments.images.figures import embedding_map, input_views, neighbours
from experiments.running.examples import BATCH, Pairs, Views, map_rows, spread
from experiments.running.figures import COMPARED, Drawing, heatmaps, loss_curve
from experiments.running.process import say
from experiments.running.progress import score_curves
from experiments.running.results import Results, finish, write_page
from experiments.running.run import Run
from experiments.running.verdict import CHECKED, verdict
from jaxcon import report
from jaxcon.augment import to_float
from jaxcon.data.splits import Dataset, Split
from jaxcon.training.workdir import Workdir

# Maps a folder for figures and pairs of embeddings, before and after, to figures and sentences.
Describe = Callable[[Path, Mapping[str, Pairs]], tuple[Sequence[Drawing], Sequence[str]]]
_LEAST_MAPPED = 4  # fewest images in a map


def conclude(
    workdir: Workdir,
    run: Run,
    *,
    dataset: Dataset,
    title: str,
    encode: Callable[[Any, jax.Array], tuple[Any, Any]],
    views: Views,
    temperature: float,
    facts: Mapping[str, str],
    settings: Mapping[str, Any],
    candidates: int | None,
    describe: Describe,
    steps_per_epoch: int,
    scored: Mapping[str, str],
) -> None:
    """Evaluates frozen features before and after, marks the run finished, draws, writes the page.

    Args:
      workdir: the run's folder.
      run: what training made.
      dataset: images; if labels are missing, the page has no table.
      title: title of the page.
      encode: maps variables and images in [0, 1] to the features that are evaluated, and the
        embeddings that the loss sees.
      views: makes two views as in training.
      temperature: temperature of the loss, for the collapse report.
      facts: made by `experiments.running.facts`.
      settings: settings to list on the page.
      candidates: K of the chance level ln K; None if chance is another number.
      describe: adds what else the page shows.
      steps_per_epoch: steps of an epoch.
      scored: sentences on what was scored while it trained, for `score_curves`.
    """
    jitted = jax.jit(encode)  # one program for all that follows: the same batch, float images
    run, mesh = run.on_devices(), run.mesh

    def outputs(variables: Any, images: Any) -> tuple[Any, Any]:
        return jitted(variables, to_float(jnp.asarray(images)))

    applied = {
        "before": functools.partial(outputs, run.before),
        "after": functools.partial(outputs, run.after),
    }
    pixels = pixels_name(dataset.train.image_shape)
    encoders = {"untrained encoder": "before", "trained encoder": "after"}
    kinds = map_dataset(
        {pixels: raw_pixels}
        | {kind: lambda x, when=when: applied[when](x)[0] for kind, when in encoders.items()},
        dataset,
        mesh,
    )
    scores: dict[str, Accuracies] = {}
    if dataset.class_names is not None:
        say("evaluating frozen features")
        devices = list(mesh.devices.flat)
        scores = {kind: evaluate(value, dataset, devices) for kind, value in kinds.items()}
    checked = spread(len(dataset.test), CHECKED, dataset.test.labels)
    embeddings = _embed(applied, views, dataset.test, checked, mesh)
    more, sentences = describe(workdir.figures, embeddings)
    judged = verdict(
        *embeddings["after"],
        temperature,
        of="test images",
        total=len(dataset.test),
        ahead=ahead(scores),
    )
    named = {kind: value.as_json() for kind, value in scores.items()}
    results = Results(named, [*judged, *sentences])
    finish(workdir, results, show)

    features = {kind: kinds[kind].test for kind in ("untrained encoder", "trained encoder")}
    shown = spread(len(checked), COMPARED, _of_rows(dataset.test, checked))
    by_class = "" if dataset.class_names is None else ", in the order of their classes"
    drawings: list[Drawing] = [
        ("views", lambda: input_views(dataset.train, views, dataset.class_names)),
        ("loss", lambda: loss_curve(workdir.figures, workdir.metrics, candidates)),
        *score_curves(workdir, steps_per_epoch, scored),
        (
            "similarity",
            lambda: heatmaps(
                workdir.figures,
                {when: (z1[shown], z2[shown]) for when, (z1, z2) in embeddings.items()},
                rows="one view",
                columns="another view",
                of=f"two views of {len(shown)} test images{by_class}",
            ),
        ),
        *more,
        (
            "neighbours",
            lambda: neighbours(dataset.test, features["trained encoder"], dataset.class_names),
        ),
    ]
    if scores and len(dataset.test) >= _LEAST_MAPPED:
        drawings.append(("embedding", lambda: embedding_map(workdir.figures, features, dataset)))
    page = report.Page(
        title=title,
        summary=_summary(scores, dataset),
        table=evaluation_table(named) if named else None,
        figures=[],
        settings=settings,
        notes=results.notes,
        facts=facts,
    )
    write_page(workdir, page, drawings)


def _of_rows(split: Split, rows: np.ndarray) -> np.ndarray | None:
    return None if split.labels is None else split.labels[rows]


def _embed(
    applied: Mapping[str, Callable[[np.ndarray], tuple[Any, Any]]],
    views: Views,
    split: Split,
    rows: np.ndarray,
    mesh: Mesh,
) -> dict[str, Pairs]:
    """Embeds two views of some images with each encoder, holding no more views than needed."""
    parts: dict[str, list[Pairs]] = {when: [] for when in applied}
    for start in range(0, len(rows), BATCH):
        pair = views(split, rows[start : start + BATCH])
        for when, apply in applied.items():
            z1, z2 = (map_rows(lambda x: apply(x)[1], view, mesh=mesh) for view in pair)  # noqa: B023
            parts[when].append((z1, z2))
    return {
        when: (np.concatenate([z1 for z1, _ in pairs]), np.concatenate([z2 for _, z2 in pairs]))
        for when, pairs in parts.items()
    }


def _summary(scores: Mapping[str, Accuracies], dataset: Dataset) -> str:
    learned = f"An encoder learned from {len(dataset.train):,} images without their labels."
    if not scores:
        return (
            f"An encoder learned from {len(dataset.train):,} images. They have no classes, so there "
            "is no score: the pictures of nearest neighbours show what it considers alike."
        )
    pixels = pixels_name(dataset.train.image_shape)
    raw, trained = scores[pixels], scores["trained encoder"]
    return (
        f"{learned} With its features and one labelled image of each of the "
        f"{len(dataset.class_names or ())} classes, {trained.one_label[0]:.1%} of the "
        f"{len(dataset.test):,} test images are classified correctly ({pixels}: "
        f"{raw.one_label[0]:.1%}); with all labels {trained.linear:.1%} ({raw.linear:.1%})."
    )


def show(scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints the scores of results.json."""
    if scores:
        say(report.format_table(evaluation_table(scores)))
    else:
        say("no labels: the report shows nearest neighbours in place of an evaluation")
