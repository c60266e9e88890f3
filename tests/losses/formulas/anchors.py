"""What several formulas use: rows, sums of exponentials, and a value per anchor."""

from typing import NamedTuple

import numpy as np


class Anchors(NamedTuple):
    """A value per anchor, which anchors enter the mean, and (triplet) how often; None: once."""

    values: np.ndarray
    valid: np.ndarray
    count: np.ndarray | None = None


def unit(z):
    """Rows of length 1."""
    z = z.reshape(len(z), -1)
    return np.stack([row / np.sqrt(np.sum(row * row)) if np.any(row) else row for row in z])


def flat(z):
    """Rows as they are."""
    return z.reshape(len(z), -1)


def log_sum_exp(terms):
    """Log of the sum of exponentials of a list; minus infinity for none."""
    terms = np.asarray(terms, np.float64)
    return np.max(terms) + np.log(np.sum(np.exp(terms - np.max(terms)))) if terms.size else -np.inf


def minus_log_share(good, others):
    """-log(e^good / (e^good + sum e^others)) without the cancellation of aligned pairs."""
    return np.log1p(np.sum(np.exp(np.asarray(others) - good))) if len(others) else 0.0


def cross_entropy(positives, negatives, smoothing=0.0):
    """Mean over the positives of the cross-entropy among all candidates, with smoothed targets."""
    candidates = [*positives, *negatives]
    hard = np.mean(
        [
            minus_log_share(candidates[k], candidates[:k] + candidates[k + 1 :])
            for k in range(len(positives))
        ]
    )
    return hard + smoothing * (np.mean(positives) - np.mean(candidates))


def all_valid(values):
    """Every row an anchor that counts."""
    return Anchors(np.array(values), np.ones(len(values), bool))


def two_views(z1, z2, ids):
    """All 2N rows; for each its own logit partner and the rows of other examples."""
    n = len(z1)
    u = np.concatenate([unit(z1), unit(z2)])
    twice = np.concatenate([ids, ids])
    partner = [(i + n) % (2 * n) for i in range(2 * n)]
    negatives = [[j for j in range(2 * n) if twice[j] != twice[i]] for i in range(2 * n)]
    return u, partner, negatives


def softplus(x):
    """log(1 + e^x)."""
    return np.logaddexp(0.0, x)


def peers_and_others(labels, ids, i):
    """The other rows of i's label; the rows of other labels that are no duplicates of i."""
    rest = [j for j in range(len(labels)) if j != i]
    peers = [j for j in rest if labels[j] == labels[i]]
    return peers, [j for j in rest if labels[j] != labels[i] and ids[j] != ids[i]]
