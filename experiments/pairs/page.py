"""The end of a run on images and captions: its table on the console, its figures and its page."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.pairs import retrieval
from experiments.pairs.figures import (
    captions_found,
    deviations_drawn,
    pair_heatmaps,
    pictures_found,
    training_pairs,
)
from experiments.pairs.model import DualEncoder
from experiments.pairs.objectives import Objective
from experiments.pairs.progress import told
from experiments.pairs.retrieval import evaluate, held_out, make_encode
from experiments.pairs.scores import Scores, recall_name, table
from experiments.running.examples import Views, spread
from experiments.running.figures import Drawing, loss_curve
from experiments.running.process import say
from experiments.running.progress import score_curves
from experiments.running.results import Results, finish, write_page
from experiments.running.run import Run
from experiments.running.verdict import CHECKED, verdict
from jaxcon import report
from jaxcon.data.captions import PairDataset
from jaxcon.encoders.tokenizer import Tokenizer
from jaxcon.training.metrics import read_metrics
from jaxcon.training.workdir import Workdir


def show(scores: Mapping[str, Mapping[str, float]]) -> None:
    """Prints the table of the scores in results.json."""
    say(report.format_table(table(scores)))


def conclude(
    workdir: Workdir,
    run: Run,
    *,
    dataset: PairDataset,
    model: DualEncoder,
    objective: Objective,
    tokenizer: Tokenizer,
    title: str,
    views: Views,
    batch_size: int,
    steps_per_epoch: int,
    facts: Mapping[str, str],
    settings: Mapping[str, Any],
) -> None:
    """Evaluates before and after, marks the run finished, draws, writes the page.

    Args:
      workdir: the run's folder.
      run: what training made.
      dataset: images with captions.
      model: the dual encoder.
      objective: says how its embeddings are compared.
      tokenizer: tokenizer of the captions.
      title: title of the page.
      views: makes views of images as in training.
      batch_size: pairs in a batch.
      steps_per_epoch: steps of an epoch.
      facts: made by `experiments.running.facts`.
      settings: settings to list on the page.
    """
    candidates = batch_size if objective.softmax else None
    note = loss_notes(workdir, objective, batch_size)
    run, encode = run.on_devices(), make_encode(model, tokenizer, run.mesh)
    say("evaluating retrieval")
    scores = {
        "trained": evaluate(encode, run.after, objective, dataset),
        "untrained": evaluate(encode, run.before, objective, dataset),
        "chance": retrieval.chance(dataset),
    }
    test = held_out(dataset.test)
    images, texts = encode.images(run.after, test.images), encode.texts(run.after, test.captions)
    used = _temperature(run) if objective.temperature is None else objective.temperature
    checked = spread(len(test.captions), CHECKED)
    judged = verdict(
        images.z[checked], texts.z[checked], used, of="test pairs", total=len(test.captions)
    )
    judged[0] += f" (The loss is clip_loss of these pairs at temperature {used:.2g}.)"
    deviations, sentences = [], []
    if objective.log_std is not None:
        deviations, sentences = deviations_drawn(workdir.figures, encode, run.after, dataset.test)
    named = {kind: value.as_json() for kind, value in scores.items()}
    results = Results(named, [note, progress(scores), *judged, *sentences])
    finish(workdir, results, show)

    page = report.Page(
        title=title,
        summary=_summary(scores, dataset),
        table=table(named),
        figures=[],
        settings=settings,
        notes=results.notes,
        facts=facts,
    )
    drawings: list[Drawing] = [
        ("views", lambda: training_pairs(dataset.train, views)),
        ("loss", lambda: loss_curve(workdir.figures, workdir.metrics, candidates)),
        *score_curves(workdir, steps_per_epoch, told(dataset)),
        (
            "similarity",
            lambda: pair_heatmaps(workdir.figures, encode, run, dataset.test, (images, texts)),
        ),
        ("pictures", lambda: pictures_found(images, texts, objective, test)),
        ("captions", lambda: captions_found(images, texts, objective, test)),
        *deviations,
    ]
    write_page(workdir, page, drawings)


def loss_notes(workdir: Workdir, objective: Objective, batch: int) -> str:
    """Says where the loss ended between 0 and chance, and how low cosines could have brought it.

    Args:
      workdir: the run's folder.
      objective: what was minimized.
      batch: pairs in a batch.
    """
    chance, temperature = objective.chance(batch), objective.temperature
    last = [row["loss"] for row in read_metrics(workdir.metrics)[-20:] if row["loss"] is not None]
    mean = sum(last) / len(last) if last else math.nan
    level = f"ln {batch}" if objective.softmax else objective.told
    note = f"Loss at the end: {mean:.3f}, {mean / chance:.2f} of chance, {chance:.3f} ({level})."
    if temperature is not None:
        # All pairs at cosine 1, all other rows at that of a regular simplex, -1 / (N - 1).
        lowest = math.log1p((batch - 1) * math.exp(-(1 + 1 / (batch - 1)) / temperature))
        note += (
            f" Cosines at temperature {temperature:g} cannot bring it below {lowest:.3f}, "
            f"{lowest / chance:.2f} of chance: a loss that looks stuck near ln {batch} says little "
            "here; retrieval and the collapse check say whether anything is learned."
        )
    return note


def _temperature(run: Run) -> float:
    """Returns the learned temperature, or 0.07; only the loss in the verdict depends on it."""
    learned = run.after["params"].get("Temperature_0")
    return float(np.exp(learned["log_temperature"])) if learned else 0.07


def _summary(scores: Mapping[str, Scores], dataset: PairDataset) -> str:
    trained, chance = scores["trained"], scores["chance"]
    return (
        f"Two encoders learned from {len(dataset.train):,} images with captions. Of "
        f"{len(dataset.test):,} test images and as many captions, the right image comes first for "
        f"{trained.text_to_image[1]:.1%} of the captions, and the right caption for "
        f"{trained.image_to_text[1]:.1%} of the images; in a random order for "
        f"{chance.text_to_image[1]:.2%}."
    )


def progress(scores: Mapping[str, Scores]) -> str:
    """Says how retrieval has improved, which the loss alone does not show.

    Example:
      >>> shares = {"untrained": 0.011, "trained": 0.43, "chance": 0.01}
      >>> progress({kind: Scores({}, {10: share}) for kind, share in shares.items()})
      'In training, text to image, recall@10 went from 1.1% to 43.0% (in a random order: 1.0%).'
    """
    k = max(scores["trained"].text_to_image)
    before, after, chance = (
        scores[kind].text_to_image[k] for kind in ("untrained", "trained", "chance")
    )
    return (
        f"In training, {recall_name('text_to_image', k)} went from {before:.1%} to {after:.1%} "
        f"(in a random order: {chance:.1%})."
    )
