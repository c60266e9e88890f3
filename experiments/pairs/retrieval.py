"""How well images and captions find each other: recall both ways, and classes by their prompts."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

from experiments.pairs.model import DualEncoder
from experiments.pairs.objectives import Objective
from experiments.pairs.prompts import FRAMES, PROMPTS, make_prompts
from experiments.pairs.scores import Scores
from experiments.running.examples import map_rows
from jaxcon.augment import to_float
from jaxcon.data.captions import PairDataset, PairSplit
from jaxcon.encoders.dual import Embedded
from jaxcon.encoders.tokenizer import Tokenizer
from jaxcon.evaluation.retrieval import chance_recall, recall_at_k
from jaxcon.evaluation.zero_shot import zero_shot_accuracy

_RANKS = (1, 5, 10)


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
        lambda variables, images: unpack(map_rows(lambda x: image(variables, x), images)),
        lambda variables, texts: unpack(
            map_rows(lambda x: text(variables, x), tokenizer.encode(texts, warn=False))
        ),
    )


def held_out(split: PairSplit) -> HeldOut:
    """Return the images with their last captions: of the highest grade, where there are grades."""
    captions = [texts[-1] for texts in split.captions]
    ids = np.unique(captions, return_inverse=True)[1]
    return HeldOut(split.images.images, captions, ids)


def evaluate(
    encode: Encode,
    variables: Any,
    objective: Objective,
    dataset: PairDataset,
    *,
    zero_shot: bool = True,
) -> Scores:
    """Return recall both ways and the zero-shot accuracy of each attribute, on test images.

    Args:
      encode: of the model.
      variables: of the model.
      objective: that compares embeddings.
      dataset: whose test images are scored.
      zero_shot: False: recall alone.
    """
    test = held_out(dataset.test)
    images, texts = encode.images(variables, test.images), encode.texts(variables, test.captions)
    return Scores(
        _recalls(objective.scores(images, texts), test.ids),
        _recalls(objective.scores(texts, images), test.ids),
        _zero_shot(encode, variables, objective, dataset, images) if zero_shot else {},
    )


def _recalls(matrix: Any, ids: np.ndarray) -> dict[int, float]:
    """Recall by rank, from the scores of queries and candidates, those of a row a pair."""
    matrix = np.asarray(matrix)
    return {k: recall_at_k(matrix, ids, ids, k=k) for k in ranks(len(ids))}


def ranks(candidates: int) -> tuple[int, ...]:
    """Return the ranks that tell something: among the first 10 of 8 is everything.

    >>> ranks(48), ranks(8)
    ((1, 5, 10), (1, 5))
    """
    return tuple(k for k in _RANKS if k == 1 or k < candidates)


def _zero_shot(
    encode: Encode, variables: Any, objective: Objective, dataset: PairDataset, images: Embedded
) -> dict[str, float]:
    """The zero-shot accuracies of the embedded images, by attribute."""
    scores = {}
    for name, labels in dataset.test.attributes.items():
        known = np.flatnonzero(labels >= 0)
        of_known = Embedded(images.z[known], images.log_std[known])
        texts = encode.texts(variables, make_prompts(name, dataset.classes[name]))
        framed = Embedded(*(part.reshape(-1, len(FRAMES), *part.shape[1:]) for part in texts))
        matrix = np.asarray(objective.scores(of_known, objective.average(framed)))
        fits = matrix.reshape(len(known), -1, len(PROMPTS[name])).max(axis=2, keepdims=True)
        scores[name] = zero_shot_accuracy(fits, labels[known])
    return scores


def chance(dataset: PairDataset) -> Scores:
    """Return what a random ranking and a random choice score."""
    ids = held_out(dataset.test).ids
    recalls = {k: chance_recall(ids, ids, k=k) for k in ranks(len(ids))}
    choice = {name: 1 / len(dataset.classes[name]) for name in dataset.test.attributes}
    return Scores(recalls, recalls, choice)


def rank_correlation(values: np.ndarray, groups: np.ndarray) -> float:
    """Return Spearman's coefficient, equal values sharing their mean rank; 0 if all are equal.

    >>> round(rank_correlation(np.array([3.0, 2.0, 2.0]), np.array([1, 2, 3])), 4)
    -0.866
    """
    if not np.ptp(values) or not np.ptp(groups):
        return 0.0
    result: Any = spearmanr(values, groups)
    return float(result.statistic)
