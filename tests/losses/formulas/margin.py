"""The formulas of jaxcon/losses/margin.py."""

import numpy as np

from tests.losses.formulas.anchors import (
    Anchors,
    all_valid,
    flat,
    log_sum_exp,
    peers_and_others,
    softplus,
    unit,
)


def multi_similarity(z, labels, *, ids, alpha=2.0, beta=50.0, base=0.5, held=None):
    """Wang et al. 2019, eq. 15, over all pairs."""
    s = unit(z) @ unit(z).T
    values = []
    for i in range(len(s)):
        positives, negatives = peers_and_others(labels, ids, i)
        near = np.log(1 + sum(np.exp(-alpha * (s[i, p] - base)) for p in positives)) / alpha
        far = np.log(1 + sum(np.exp(beta * (s[i, n] - base)) for n in negatives)) / beta
        values.append(near + far)
    return all_valid(values)


def circle(z, labels, *, ids, margin=0.4, gamma=80.0, held=None):
    """Sun et al. 2020, eq. 6 to 8: the weights alpha held constant, as the paper says they are."""
    s = unit(z) @ unit(z).T
    fixed = unit(held[0]) @ unit(held[0]).T if held else s
    values, valid = [], []
    for i in range(len(s)):
        positives, negatives = peers_and_others(labels, ids, i)
        pull = [
            -gamma * max(0, 1 + margin - fixed[i, p]) * (s[i, p] - (1 - margin)) for p in positives
        ]
        push = [gamma * max(0, fixed[i, n] + margin) * (s[i, n] - margin) for n in negatives]
        valid.append(bool(pull and push))
        values.append(softplus(log_sum_exp(pull) + log_sum_exp(push)) if valid[-1] else 0.0)
    return Anchors(np.array(values), np.array(valid))


def spectral_contrastive(z1, z2, *, ids, held=None):
    """HaoChen et al. 2021, eq. 6, with the negatives' expectation over the other pairs."""
    x, y = flat(z1), flat(z2)
    values = []
    for i in range(len(x)):
        squares = [(x[i] @ y[j]) ** 2 for j in range(len(y)) if ids[j] != ids[i]]
        values.append(-2 * (x[i] @ y[i]) + (np.mean(squares) if squares else 0.0))
    return all_valid(values)
