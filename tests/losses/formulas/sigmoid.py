"""The formulas of jaxcon/losses/sigmoid.py."""

import numpy as np

from tests.losses.formulas.anchors import all_valid, softplus, unit


def siglip(z1, z2, *, ids, labels=None, temperature=0.1, bias=-10.0, held=None):
    """Zhai et al. 2023, eq. 1: -log sigmoid(label * logit), summed over the candidates."""
    x, y = unit(z1), unit(z2)
    n = len(x)
    labels = np.arange(n) if labels is None else labels
    values = []
    for i in range(n):
        logits = [x[i] @ y[j] / temperature + bias for j in range(n)]
        positives = [softplus(-logits[j]) for j in range(n) if labels[j] == labels[i]]
        negatives = [
            softplus(logits[j]) for j in range(n) if labels[j] != labels[i] and ids[j] != ids[i]
        ]
        values.append(np.mean(positives) + np.sum(negatives))
    return all_valid(values)
