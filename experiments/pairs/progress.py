"""Scores of a dual encoder while it trains: how well held-out pairs find each other, and spread."""

from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from experiments.pairs.model import DualEncoder
from experiments.pairs.objectives import Objective
from experiments.pairs.retrieval import held_out, make_encode
from experiments.running.examples import spread
from experiments.running.progress import spreading
from experiments.running.verdict import CHECKED
from jaxcon.data.captions import PairDataset
from jaxcon.encoders.tokenizer import Tokenizer
from jaxcon.evaluation.retrieval import recall_at_k
from jaxcon.training.state import TrainState


def make_evaluate(
    dataset: PairDataset,
    model: DualEncoder,
    objective: Objective,
    tokenizer: Tokenizer,
    mesh: Mesh,
) -> Callable[[TrainState], Mapping[str, float]]:
    """Returns the function that scores a state on at most 1,000 validation pairs, evenly spread.

    It computes recall@1, averaged over both ways, and effective rank, alignment and uniformity of
    images and their captions. No test image takes part. The average of the weights is scored if there
    is one. Where there are several processes, the first computes the scores from the embeddings of all.

    Args:
      dataset: images with captions.
      model: the dual encoder.
      objective: says how its embeddings are compared.
      tokenizer: tokenizer of the captions.
      mesh: the devices of the run, which share the pairs.
    """
    held = held_out(dataset.validation)
    rows = spread(len(held.captions), CHECKED)
    encode = make_encode(model, tokenizer, mesh)
    pictures = [held.images[int(row)] for row in rows]
    captions, ids = [held.captions[row] for row in rows], held.ids[rows]

    def evaluate(state: TrainState) -> Mapping[str, float]:
        if not len(rows):
            return {}
        variables = state.variables(average=True)
        images, texts = encode.images(variables, pictures), encode.texts(variables, captions)
        if jax.process_index() != 0:
            return {}
        scores = spreading(images.z, texts.z)
        matrix = np.asarray(objective.scores(images, texts))
        if not np.isfinite(matrix).all():
            return {"recall_at_1": float("nan"), **scores}
        back = np.asarray(objective.scores(texts, images))
        recall = (recall_at_k(matrix, ids, ids, k=1) + recall_at_k(back, ids, ids, k=1)) / 2
        return {"recall_at_1": recall, **scores}

    return evaluate


def told(dataset: PairDataset) -> dict[str, str]:
    """Returns sentences on what was scored, for the figure."""
    count = min(len(dataset.validation.captions), CHECKED)
    return {
        "recall_at_1": f"recall@1 is the mean of both ways, among {count:,} validation images and as "
        "many captions.",
        "spread": "The others are of the embeddings of these.",
    }
