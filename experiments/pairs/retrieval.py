"""How well images and captions find each other: recall both ways, and classes by their prompts."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
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
    """Map variables, and uint8 images or texts, to what the objective compares."""

    images: Callable[[Any, Any], Embedded]
    texts: Callable[[Any, Sequence[str]], Embedded]


class HeldOut(NamedTuple):
    """Test images, each with its most specific caption; equal captions have equal ids."""

    images: Any
    captions: list[str]
    ids: np.ndarray


def make_encode(model: DualEncoder, tokenizer: Tokenizer, mesh: Mesh | None = None) -> Encode:
    """Returns the two functions, each compiled once, for batches of one size.

    Args:
      model: the dual encoder.
      tokenizer: of the texts.
      mesh: devices that share a batch, as in `map_rows`.
    """
    whole = None if mesh is None else NamedSharding(mesh, PartitionSpec())

    def packed(method: str, inputs: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
        @functools.partial(jax.jit, out_shardings=whole)
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
        lambda variables, images: unpack(
            map_rows(lambda x: image(variables, x), images, mesh=mesh)
        ),
        lambda variables, texts: unpack(
            map_rows(lambda x: text(variables, x), tokenizer.encode(texts, warn=False), mesh=mesh)
        ),
    )


def held_out(split: PairSplit) -> HeldOut:
    """Returns the images with their last captions, which have the highest grade if there are grades."""
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
    """Returns recall both ways and the zero-shot accuracy of each attribute, on test images.

    Args:
      encode: the model's functions.
      variables: the model's variables.
      objective: says how embeddings are compared.
      dataset: the dataset whose test images are scored.
      zero_shot: whether to compute zero-shot accuracy as well as recall.
    """
    test = held_out(dataset.test)
    images, texts = encode.images(variables, test.images), encode.texts(variables, test.captions)
    return Scores(
        _recalls(objective.scores(images, texts), test.ids),
        _recalls(objective.scores(texts, images), test.ids),
        _zero_shot(encode, variables, objective, dataset, images) if zero_shot else {},
    )


def _recalls(matrix: Any, ids: np.ndarray) -> dict[int, float]:
    """Returns recall by rank, from scores `[queries, candidates]`; query i's pair is candidate i."""
    matrix = np.asarray(matrix)
    return {k: recall_at_k(matrix, ids, ids, k=k) for k in ranks(len(ids))}


def ranks(candidates: int) -> tuple[int, ...]:
    """Returns the ranks worth reporting: of 8 candidates, all are among the first 10.

    Example:
      >>> ranks(48), ranks(8)
      ((1, 5, 10), (1, 5))
    """
    return tuple(k for k in _RANKS if k == 1 or k < candidates)


def _zero_shot(
    encode: Encode, variables: Any, objective: Objective, dataset: PairDataset, images: Embedded
) -> dict[str, float]:
    """Returns the zero-shot accuracies of the embedded images, by attribute."""
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
    """Returns what a random ranking and a random choice score."""
    ids = held_out(dataset.test).ids
    recalls = {k: chance_recall(ids, ids, k=k) for k in ranks(len(ids))}
    choice = {name: 1 / len(dataset.classes[name]) for name in dataset.test.attributes}
    return Scores(recalls, recalls, choice)


def rank_correlation(values: np.ndarray, groups: np.ndarray) -> float:
    """Returns Spearman's coefficient; equal values share their mean rank; 0 if all are equal.

    Example:
      >>> round(rank_correlation(np.array([3.0, 2.0, 2.0]), np.array([1, 2, 3])), 4)
      -0.866
    """
    if not np.ptp(values) or not np.ptp(groups):
        return 0.0
    result: Any = spearmanr(values, groups)
    return float(result.statistic)
