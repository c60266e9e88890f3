"""Recall at k: is a right candidate among the k best? Chance is that of a random order.

>>> scores = np.array([[0.9, 0.1, 0.2], [0.8, 0.3, 0.1], [0.1, 0.2, 0.7]])
>>> ids = np.arange(3)
>>> recall = recall_at_k(scores, ids, ids, k=1)
>>> print(f"{recall:.3f}, chance {chance_recall(ids, ids, k=1):.3f}")
0.667, chance 0.333
"""

from __future__ import annotations

import numpy as np

from jaxcon.evaluation.features import as_labels, at_least_one, numbered

_BLOCK = 1024


def recall_at_k(
    scores: np.ndarray, query_ids: np.ndarray, candidate_ids: np.ndarray, *, k: int
) -> float:
    """Computes the share of queries that find a candidate of their own id among the k best.

    Candidates of equal score are taken in random order, and the result is the expectation: if r of
    the t candidates that tie with the best right one are right, and L places are left for them, the
    query counts as

        1 - C(t - r, L) / C(t, L)

    So a model that gives the same score to everything is at chance, not at 0 or 1.

    Example:
      >>> recall_at_k(np.zeros((1, 4)), np.array([7]), np.array([7, 1, 7, 2]), k=1)
      0.5

    Args:
      scores: `[queries, candidates]` of any real dtype; higher is nearer.
      query_ids: int `[queries]`.
      candidate_ids: int `[candidates]`; equal ids are right for each other (equal captions).
      k: at least 1; all candidates if there are fewer.

    Returns:
      A share in [0, 1]. A query without any right candidate counts as not found.

    Raises:
      ValueError: if k is below 1, shapes do not match, there is no query, or scores are NaN.
    """
    query_ids, candidate_ids, k = _ids(query_ids, candidate_ids, k)
    scores = _comparable(scores)
    if scores.shape != (len(query_ids), len(candidate_ids)):
        raise ValueError(
            f"scores must be [queries, candidates], ({len(query_ids)}, {len(candidate_ids)}), "
            f"got {scores.shape}"
        )
    found = 0.0
    for start in range(0, len(scores), _BLOCK):
        block = scores[start : start + _BLOCK]
        bad = np.flatnonzero(np.isnan(block).any(axis=1))
        if len(bad):
            raise ValueError(f"row {start + bad[0]} of the scores is NaN; the encoder has diverged")
        right = query_ids[start : start + _BLOCK, None] == candidate_ids
        best = np.max(block, axis=1, keepdims=True, initial=block.min(), where=right)
        level = (block == best) & right.any(axis=1, keepdims=True)
        places = k - (block > best).sum(axis=1)
        found += _drawn(level.sum(axis=1), (level & right).sum(axis=1), places).sum()
    return float(found / len(scores))


def chance_recall(query_ids: np.ndarray, candidate_ids: np.ndarray, *, k: int) -> float:
    """Computes the expected `recall_at_k` of a random order of the candidates.

    Example:
      >>> chance_recall(np.array([0, 1]), np.array([0, 0, 1, 2]), k=2)  # 5/6 and 1/2
      0.6666666666666667

    Args:
      query_ids: int `[queries]`.
      candidate_ids: int `[candidates]`.
      k: at least 1.

    Returns:
      A share in [0, 1].
    """
    query_ids, candidate_ids, k = _ids(query_ids, candidate_ids, k)
    right = np.bincount(candidate_ids, minlength=query_ids.max() + 1)[query_ids]
    total = np.full(len(query_ids), len(candidate_ids))
    return float(_drawn(total, right, np.full(len(query_ids), k)).mean())


def _drawn(total: np.ndarray, right: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Computes the chance that `places` draws without replacement meet one of the `right`."""
    missed = np.ones(len(total))
    for drawn in range(int(min(places.max(), total.max()))):
        left = np.maximum(total - drawn, 1)
        step = np.clip((total - right - drawn) / left, 0, 1)
        missed *= np.where(drawn < np.minimum(places, total), step, 1.0)
    return 1 - missed


def _comparable(scores: np.ndarray) -> np.ndarray:
    """Returns scores in a dtype whose values NumPy orders as they are: integers stay integers."""
    scores = np.asarray(scores)
    if scores.dtype.kind in "iuf":
        return scores
    if scores.dtype.kind == "b":
        return scores.astype(np.uint8)
    try:
        exact = np.result_type(scores.dtype, np.float32)  # bfloat16 among others
    except TypeError:
        exact = scores.dtype
    if exact != np.float32:
        raise ValueError(f"scores must be real numbers, got dtype {scores.dtype}")
    return scores.astype(exact)


def _ids(
    query_ids: np.ndarray, candidate_ids: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, int]:
    k = at_least_one("k", k)
    ids = {"query_ids": query_ids, "candidate_ids": candidate_ids}
    ids = {name: as_labels(name, value) for name, value in ids.items()}
    for name, value in ids.items():
        if value.ndim != 1 or not len(value):
            raise ValueError(f"{name} must be a row of at least one id, got shape {value.shape}")
    queries, candidates = numbered(*ids.values())
    return queries, candidates, k
