"""The formulas of jaxcon/losses/reweighted.py."""

import numpy as np

from tests.losses.formulas.anchors import Anchors, all_valid, log_sum_exp, two_views, unit


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
