"""The formulas of jaxcon/losses/softmax.py."""

import numpy as np

from tests.losses.formulas.anchors import (
    all_valid,
    cross_entropy,
    flat,
    minus_log_share,
    two_views,
    unit,
)


def ntxent(z1, z2, *, ids, temperature=0.5, held=None):
    """SimCLR, eq. 1."""
    u, partner, negatives = two_views(z1, z2, ids)
    return all_valid(
        [
            minus_log_share(
                u[i] @ u[partner[i]] / temperature,
                [u[i] @ u[j] / temperature for j in negatives[i]],
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
        values.append(minus_log_share(x[i] @ y[i] / temperature, others) + l2_weight * norms / 4)
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
