"""The losses as the papers print them: float64 NumPy, one anchor at a time, nothing shared with jaxcon.

A formula takes the rows that count (masked ones are taken out by the caller), the ``ids`` and
``labels`` of the rows, and the settings. It returns a value per anchor and whether that anchor counts,
or a scalar where the loss has no anchors. ``held`` are the arguments again: where a paper holds a
factor constant in the gradient, the formula reads it from there, so that a finite difference in the
arguments alone is the gradient that the paper means.
"""

from typing import NamedTuple

import numpy as np


class Anchors(NamedTuple):
    """A value per anchor, and which anchors enter the mean."""

    values: np.ndarray
    valid: np.ndarray


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


def ntxent(z1, z2, *, ids, temperature=0.5, held=None):
    """SimCLR, eq. 1."""
    u, partner, negatives = two_views(z1, z2, ids)
    return all_valid(
        [
            minus_log_share(
                u[i] @ u[partner[i]] / temperature, [u[i] @ u[j] / temperature for j in negatives[i]]
            )
            for i in range(len(u))
        ]
    )


def npairs(z1, z2, *, ids, temperature=1.0, normalize=True, l2_weight=0.0, held=None):
    """Sohn 2016, eq. 7 with the norms of his section 3.2.2."""
    x, y = (unit(z1), unit(z2)) if normalize else (flat(z1), flat(z2))
    values = []
    for i in range(len(x)):
        others = [x[i] @ y[j] / temperature for j in range(len(y)) if ids[j] != ids[i]]
        norms = np.sum(flat(z1)[i] ** 2) + np.sum(flat(z2)[i] ** 2)
        values.append(
            minus_log_share(x[i] @ y[i] / temperature, others) + l2_weight * norms / 4
        )
    return all_valid(values)


def info_nce(
    z1,
    z2,
    extra=None,
    *,
    ids,
    labels=None,
    negatives=None,
    negative_ids=None,
    temperature=0.07,
    in_batch=True,
    held=None,
):
    """CPC, eq. 4; MoCo, eq. 1. ``extra`` are an anchor's own negatives, ``negatives`` everyone's."""
    x, y = unit(z1), unit(z2)
    labels = np.arange(len(x)) if labels is None else labels
    values = []
    for i in range(len(x)):
        positives, others = [x[i] @ y[i] / temperature], []
        if in_batch:
            batch = range(len(y))
            positives = [x[i] @ y[j] / temperature for j in batch if labels[j] == labels[i]]
            others = [
                x[i] @ y[j] / temperature
                for j in batch
                if labels[j] != labels[i] and ids[j] != ids[i]
            ]
        if negatives is not None:
            for k, row in enumerate(unit(negatives)):
                if negative_ids is None or negative_ids[k] != ids[i]:
                    others.append(x[i] @ row / temperature)
        if extra is not None:
            others += [x[i] @ row / temperature for row in unit(extra[i])]
        values.append(cross_entropy(positives, others))
    return all_valid(values)


def clip(z1, z2, *, ids, labels=None, temperature=0.07, label_smoothing=0.0, held=None):
    """CLIP, figure 3: cross-entropy over rows and over columns of one matrix of logits."""
    s = unit(z1) @ unit(z2).T / temperature
    n = len(s)
    labels = np.arange(n) if labels is None else labels
    values = []
    for i in range(n):
        same = [j for j in range(n) if labels[j] == labels[i]]
        other = [j for j in range(n) if labels[j] != labels[i] and ids[j] != ids[i]]
        forward = cross_entropy([s[i, j] for j in same], [s[i, j] for j in other], label_smoothing)
        backward = cross_entropy([s[j, i] for j in same], [s[j, i] for j in other], label_smoothing)
        values.append((forward + backward) / 2)
    return all_valid(values)


def supcon(z, labels, *, ids, temperature=0.1, held=None):
    """Khosla et al. 2020, eq. 2 (L_out)."""
    u = unit(z)
    values, valid = [], []
    for i in range(len(u)):
        rest = [j for j in range(len(u)) if j != i]
        positives = [u[i] @ u[j] / temperature for j in rest if labels[j] == labels[i]]
        negatives = [
            u[i] @ u[j] / temperature for j in rest if labels[j] != labels[i] and ids[j] != ids[i]
        ]
        valid.append(bool(positives))
        values.append(cross_entropy(positives, negatives) if positives else 0.0)
    return Anchors(np.array(values), np.array(valid))


def dcl(z1, z2, *, ids, temperature=0.1, sigma=None, held=None):
    """Yeh et al. 2021, eq. 6, and eq. 7 with the weights of its section 3.3, held constant."""
    u, partner, negatives = two_views(z1, z2, ids)
    weight = np.ones(len(z1))
    if sigma is not None:
        h1, h2 = (unit(z) for z in (held or (z1, z2)))
        score = np.array([np.exp(a @ b / sigma) for a, b in zip(h1, h2, strict=True)])
        weight = 2 - score / np.mean(score)
    values = [
        log_sum_exp([u[i] @ u[j] / temperature for j in negatives[i]])
        - weight[i % len(z1)] * (u[i] @ u[partner[i]]) / temperature
        if negatives[i]
        else 0.0
        for i in range(len(u))
    ]
    return Anchors(np.array(values), np.array([bool(row) for row in negatives]))


def hard_negative(z1, z2, *, ids, temperature=0.5, beta=1.0, positive_prior=0.0, held=None):
    """Robinson et al. 2021, eq. 4 as in its code; beta = 0 is Chuang et al. 2020, eq. 8."""
    u, partner, negatives = two_views(z1, z2, ids)
    values = []
    for i in range(len(u)):
        good = np.exp(u[i] @ u[partner[i]] / temperature)
        bad = np.array([np.exp(u[i] @ u[j] / temperature) for j in negatives[i]])
        if not len(bad):
            values.append(0.0)
            continue
        hardness = bad**beta / np.mean(bad**beta)
        total = (np.sum(hardness * bad) - positive_prior * len(bad) * good) / (1 - positive_prior)
        total = max(total, len(bad) * np.exp(-1 / temperature)) if positive_prior else total
        values.append(np.log1p(total / good))
    return all_valid(values)
