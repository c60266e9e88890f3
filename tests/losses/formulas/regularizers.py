"""The formulas of jaxcon/losses/regularizers.py."""

import numpy as np

from tests.losses.formulas.anchors import all_valid, flat, unit


def alignment(z1, z2, *, alpha=2.0, held=None):
    """Wang & Isola 2020, eq. 3."""
    return all_valid(
        [np.linalg.norm(a - b) ** alpha for a, b in zip(unit(z1), unit(z2), strict=True)]
    )


def uniformity(z, *, t=2.0, held=None):
    """Wang & Isola 2020, eq. 4, over the pairs of different rows as in its code (pdist)."""
    u = unit(z)
    pairs = [(i, j) for i in range(len(u)) for j in range(i)]
    return np.log(np.mean([np.exp(-t * np.sum((u[i] - u[j]) ** 2)) for i, j in pairs]))


def koleo(z, *, held=None):
    """Sablayrolles et al. 2019, eq. 3."""
    u = unit(z)
    return all_valid(
        [
            -np.log(min(np.linalg.norm(u[i] - u[j]) for j in range(len(u)) if j != i) + 1e-8)
            for i in range(len(u))
        ]
    )


def variance(z, *, held=None):
    """Bardes et al. 2021, eq. 1."""
    return np.mean(np.maximum(0, 1 - np.sqrt(flat(z).var(0, ddof=1) + 1e-4)))
