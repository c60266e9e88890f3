"""k nearest neighbours on frozen features: needs no training and has almost nothing to tune."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from jaxcon.evaluation.features import (
    DECIMALS,
    as_rows,
    at_least_one,
    numbered,
    own_devices,
    require_one_width,
    shares,
    unit_rows,
)
from jaxcon.evaluation.nearest import Places, Proposed, all_compared, compared, propose

_BLOCK, _VOTES = 1024, 2**22  # test rows of a block, and votes of all classes for them


def knn_accuracy(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    k: int = 20,
    temperature: float = 0.07,
    devices: Sequence[Any] | None = None,
) -> float:
    """Computes the share of test rows whose nearest training rows vote for their class.

    The k training rows with the largest cosine s vote for their class with weight
    exp(s / temperature); the class with the most votes wins. Rows of equal cosine are taken in random
    order, each of m classes with equal votes wins with probability 1 / m, and the result is the
    expectation: it depends neither on the order of the rows nor on the names of the classes.

    Neighbours are found on the devices, tile by tile, in float32; where its rounding could decide,
    cosines are compared in float64, to 12 decimals (`jaxcon.evaluation.nearest`). Where many training
    rows share the last places, or all are nearly alike, that is with all of them, and takes longer.

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
      devices: devices of this process, which share the test rows; None: all of them, and one on CPUs.

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
    # Squares of float64 may overflow or vanish, those of float32 in float64 do not.
    train_x, test_x = (x if x.dtype == np.float32 else unit_rows(x) for x in (train_x, test_x))
    k = min(k, len(train_x))
    classes = 1 + max(train_y.max(), test_y.max())
    expected = cache(_expected_share)
    found = propose(train_x, test_x, k, devices=own_devices(devices))
    of_found = train_y[found.rows]
    share = np.empty(len(test_x))
    for rows in _blocks(np.arange(len(test_x)), classes):
        near = found._replace(rows=found.rows[rows], cosines=found.cosines[rows])
        share[rows] = _certain(near, of_found[rows], test_y[rows], k, temperature, classes)
    for rows in _blocks(np.flatnonzero(np.isnan(share)), classes):
        cosines = compared(train_x, test_x[rows], found.rows[rows])
        places = _places(cosines, of_found[rows], k, classes)
        last = places.cosines.min(axis=1)
        # Others are no nearer than the last that was proposed: can one of them be as near as that?
        complete = found.cosines[rows, -1] + found.error < last - 10.0**-DECIMALS
        if found.rows.shape[1] < len(train_x) and not complete.all():
            left, rows = rows[~complete], rows[complete]
            places = Places(*(part[complete] for part in places))
            share[left] = _shares(
                all_compared(train_x, train_y, test_x[left], k, classes=classes),
                test_y[left],
                temperature,
                expected,
            )
        share[rows] = _shares(places, test_y[rows], temperature, expected)
    return float(share.mean())


def _blocks(rows: np.ndarray, classes: int) -> list[np.ndarray]:
    """Divides rows into blocks of which each can have the votes of all classes."""
    size = max(1, min(_BLOCK, _VOTES // classes))
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _certain(
    found: Proposed, labels: np.ndarray, own: np.ndarray, k: int, temperature: float, classes: int
) -> np.ndarray:
    """Returns 1 where the own class wins, 0 where another does, NaN where rounding could decide."""
    s = found.cosines[:, :k]
    with np.errstate(over="ignore", invalid="ignore"):
        weights = np.exp((s - s[:, :1]) / temperature)
        off = np.exp(2 * found.error / temperature) * (1 + 1e-8)  # of the quotient of two votes
        votes = np.zeros((len(s), classes))
        np.add.at(votes, (np.arange(len(s))[:, None], labels[:, :k]), weights)
        mine = votes[np.arange(len(s)), own]
        votes[np.arange(len(s)), own] = -1
        theirs = votes.max(axis=1, initial=0)
        share = np.where(mine > theirs * off, 1.0, np.where(theirs > mine * off, 0.0, np.nan))
    if found.cosines.shape[1] > k:  # another row could be among the k
        share[s[:, -1] - found.cosines[:, k] <= 2 * found.error] = np.nan
    return share


def _places(cosines: np.ndarray, labels: np.ndarray, k: int, classes: int) -> Places:
    """Chooses k of rows `[m, c]`, among which are all that tie with the k-th."""
    best = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    chosen = np.take_along_axis(cosines, best, axis=1)
    query, row = np.nonzero(cosines == chosen.min(axis=1, keepdims=True))
    tied = np.zeros((len(cosines), classes), np.int64)
    np.add.at(tied, (query, labels[query, row]), 1)
    return Places(chosen, np.take_along_axis(labels, best, axis=1), tied)


def _shares(
    places: Places, own: np.ndarray, temperature: float, expected: Callable[..., float]
) -> np.ndarray:
    """Returns the expected share of the win of each query's own class.

    Args:
      places: who votes.
      own: `[m]`, the right classes.
      temperature: of the vote.
      expected: `_expected_share`, which remembers what it was asked.
    """
    s, labels, tied = places
    highest, last = s.max(axis=1, keepdims=True), s.min(axis=1, keepdims=True)
    weights = np.exp((s - highest) / temperature)
    votes = np.zeros(tied.shape)
    np.add.at(votes, (np.arange(len(s))[:, None], labels), weights)
    share = shares(votes, own)
    # Queries whose last places are contested by more training rows than there are places.
    for row in np.flatnonzero(tied.sum(axis=1) > (s == last).sum(axis=1)):
        above = s[row] > last[row]
        fixed = np.bincount(labels[row], weights[row] * above, minlength=tied.shape[1])
        share[row] = expected(
            *_contest(own[row], fixed, tied[row]), float(weights[row].min()), int((~above).sum())
        )
    return share


_NEVER = 1e-15  # chance of draws that are left out

Rival = tuple[float, int]  # votes that are fixed, training rows that tie for the last places


def _contest(
    own: int, fixed: np.ndarray, tied: np.ndarray
) -> tuple[Rival, tuple[tuple[Rival, int], ...]]:
    """Summarizes the own class and counts equal others: many rows ask the same question."""
    taking_part = np.flatnonzero((fixed > 0) | (tied > 0))
    rivals = Counter(zip(fixed[taking_part].tolist(), tied[taking_part].tolist(), strict=True))
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
    expected = 0.0
    for mine in range(min(own[1], places) + 1):
        votes = own[0] + weight * mine
        chance = _draws(own[1], mine, scale) * _draws(total - own[1], places - mine, scale)
        if chance <= _NEVER * _draws(total, places, scale):
            continue
        least, most = votes - 1e-9 * votes, votes + 1e-9 * votes  # what counts as equal
        if not votes or any(fixed > most for (fixed, _), _ in rivals):
            continue  # others have all votes, or more whatever is drawn
        serious = [
            ((fixed, tied), count)
            for (fixed, tied), count in rivals
            if fixed + weight * min(tied, places) >= least
        ]
        # All that cannot reach the own votes are as one class.
        harmless = total - own[1] - sum(tied * count for (_, tied), count in serious)
        degree = places + sum(count for (fixed, _), count in serious if fixed)
        x, share_of_x = _quadrature(degree // 2 + 1)
        product = np.zeros((len(x), places + 1))
        for theirs in range(min(harmless, places) + 1):
            product[:, theirs] = _draws(harmless, theirs, scale)
        for (fixed, tied), count in serious:
            factor = np.zeros_like(product)
            for theirs in range(min(tied, places) + 1):
                gets = fixed + weight * theirs
                if gets > most:
                    break
                factor[:, theirs] = _draws(tied, theirs, scale) * (x if gets >= least else 1)
            product = _times(product, _power(factor, count))
        expected += _draws(own[1], mine, scale) * (share_of_x @ product[:, places - mine])
    return round(float(expected / _draws(total, places, scale)), 12)


@cache
def _quadrature(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns points and weights of Gauss and Legendre on [0, 1]."""
    x, weights = np.polynomial.legendre.leggauss(points)
    return (x + 1) / 2, weights / 2


def _draws(rows: int, drawn: int, scale: float) -> float:
    """Computes `C(rows, drawn) scale^drawn`."""
    if drawn > rows:
        return 0.0
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
