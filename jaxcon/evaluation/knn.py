"""k nearest neighbours on frozen features: needs no training and has almost nothing to tune."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

import numpy as np

from jaxcon.evaluation.features import (
    DECIMALS,
    as_rows,
    at_least_one,
    numbered,
    require_one_width,
    shares,
    unit_rows,
)

_BLOCK = 256


def knn_accuracy(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Computes the share of test rows whose nearest training rows vote for their class.

    The k training rows with the largest cosine s vote for their class with weight
    exp(s / temperature); the class with the most votes wins. Rows of equal cosine are taken in random
    order, each of m classes with equal votes wins with probability 1 / m, and the result is the
    expectation: it depends neither on the order of the rows nor on the names of the classes.

    Example:
      >>> x, y = np.eye(3), np.array([0, 1, 2])
      >>> knn_accuracy(x, y, x + 0.1, y, k=1)
      1.0
      >>> knn_accuracy(np.ones((4, 2)), np.array([0, 1, 1, 1]), np.ones((1, 2)), np.array([1]), k=1)
      0.75

    Args:
      train_x: `[n, *features]`, any scale.
      train_y: int `[n]`.
      test_x: `[m, *features]`.
      test_y: int `[m]`.
      k: number of neighbours, at least 1; all training rows if there are fewer.
      temperature: above 0; small values trust the nearest, large ones count all votes alike.

    Returns:
      Accuracy in [0, 1].

    Raises:
      ValueError: if settings are out of range, shapes do not match or features are not finite.

    Reference:
      Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018,
      section 3.4; k = 20 is the setting of Caron et al., DINO, ICCV 2021.
    """
    k = at_least_one("k", k)
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    train_x, train_y = as_rows("train", train_x, train_y)
    test_x, test_y = as_rows("test", test_x, test_y)
    require_one_width(train=train_x, test=test_x)
    train_y, test_y = numbered(train_y, test_y)
    train, test = (unit_rows(rows.astype(np.float64)) for rows in (train_x, test_x))
    classes = 1 + max(train_y.max(), test_y.max())
    k = min(k, len(train))
    expected = cache(_expected_share)
    total = 0.0
    for start in range(0, len(test), _BLOCK):
        cosine = test[start : start + _BLOCK] @ train.T  # (block, d) . (d, n) -> (block, n)
        cosine = np.round(cosine, DECIMALS)
        own = test_y[start : start + _BLOCK]
        nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        s = np.take_along_axis(cosine, nearest, axis=1)
        highest, last = s.max(axis=1, keepdims=True), s.min(axis=1, keepdims=True)
        weights = np.exp((s - highest) / temperature)
        votes = np.zeros((len(s), classes))
        np.add.at(votes, (np.arange(len(s))[:, None], train_y[nearest]), weights)
        share = shares(votes, own)
        # Rows whose last places are contested by more training rows than there are places.
        for row in np.flatnonzero((cosine >= last).sum(axis=1) > k):
            tied = cosine[row] == last[row]
            above = s[row] > last[row]
            fixed = np.bincount(train_y[nearest[row]], weights[row] * above, minlength=classes)
            share[row] = expected(
                *_contest(own[row], fixed, np.bincount(train_y[tied], minlength=classes)),
                float(weights[row].min()),
                k - int(above.sum()),
            )
        total += share.sum()
    return float(total / len(test))


Rival = tuple[float, int]  # votes that are fixed, training rows that tie for the last places


def _contest(
    own: int, fixed: np.ndarray, tied: np.ndarray
) -> tuple[Rival, tuple[tuple[Rival, int], ...]]:
    """Summarizes the own class and counts equal others: many rows ask the same question."""
    rivals = Counter((float(f), int(t)) for f, t in zip(fixed, tied, strict=True) if f or t)
    mine = (float(fixed[own]), int(tied[own]))
    rivals[mine] -= 1
    return mine, tuple(sorted((rival, count) for rival, count in rivals.items() if count > 0))


def _expected_share(
    own: Rival, rivals: tuple[tuple[Rival, int], ...], weight: float, places: int
) -> float:
    """Computes the expected 1 / m if the own class is among the m with most votes, else 0.

    `places` of the rows that tie are drawn without replacement and vote with `weight`. The number of
    draws in which class c gets h of them is C(t_c, h); so for all classes together it is the
    coefficient of z^places in a product of polynomials. A class that reaches the own votes carries a
    factor x, one that exceeds them is left out, and 1 / m is the integral of x^(m - 1) over [0, 1],
    which Gauss-Legendre quadrature gives exactly.
    """
    total = own[1] + sum(rival[1] * count for rival, count in rivals)
    scale = places / (math.e * total)  # of z: keeps the numbers of draws from overflowing
    degree = places + sum(count for (fixed, _), count in rivals if fixed)
    x, share_of_x = np.polynomial.legendre.leggauss(degree // 2 + 1)
    x, share_of_x = (x + 1) / 2, share_of_x / 2
    expected = 0.0
    for mine in range(min(own[1], places) + 1):
        votes = own[0] + weight * mine
        if not votes:
            continue  # others have all votes
        product = np.zeros((len(x), places + 1))
        product[:, 0] = _draws(own[1], mine, scale)
        for (fixed, tied), count in rivals:
            factor = np.zeros_like(product)
            for theirs in range(min(tied, places) + 1):
                difference = fixed + weight * theirs - votes
                if difference <= 1e-9 * votes:
                    reached = difference >= -1e-9 * votes
                    factor[:, theirs] = _draws(tied, theirs, scale) * (x if reached else 1)
            product = _times(product, _power(factor, count))
        expected += share_of_x @ product[:, places - mine]
    return round(float(expected / _draws(total, places, scale)), 12)


def _draws(rows: int, drawn: int, scale: float) -> float:
    """Computes `C(rows, drawn) scale^drawn`."""
    log = math.lgamma(rows + 1) - math.lgamma(drawn + 1) - math.lgamma(rows - drawn + 1)
    return math.exp(log + drawn * math.log(scale))


def _times(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Multiplies polynomials `[points, degree + 1]`, cut at that degree."""
    product = np.zeros_like(p)
    for degree in np.flatnonzero(q.any(axis=0)):
        product[:, degree:] += q[:, degree : degree + 1] * p[:, : p.shape[1] - degree]
    return product


def _power(p: np.ndarray, exponent: int) -> np.ndarray:
    if exponent == 1:
        return p
    half = _power(p, exponent // 2)
    return _times(_times(half, half), p) if exponent % 2 else _times(half, half)
