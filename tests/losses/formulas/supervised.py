"""The formulas of jaxcon/losses/supervised.py."""

import numpy as np

from tests.losses.formulas.anchors import Anchors, cross_entropy, unit


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
