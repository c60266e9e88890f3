"""The formulas of jaxcon/losses/correlation.py."""

import numpy as np

from tests.losses.formulas.anchors import all_valid, flat


def barlow_twins(z1, z2, *, off_diagonal_weight=5e-3, scale=1.0, held=None):
    """Zbontar et al. 2021, eq. 1 and 2, with the batch normalization of its code."""
    n = len(z1)
    x, y = ((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) for z in (flat(z1), flat(z2)))
    total = 0.0
    for i in range(x.shape[1]):
        for j in range(x.shape[1]):
            c = np.sum(x[:, i] * y[:, j]) / n
            total += (1 - c) ** 2 if i == j else off_diagonal_weight * c**2
    return scale * total


def vicreg(z1, z2, *, invariance=25.0, variance=25.0, covariance=1.0, held=None):
    """Bardes et al. 2021, eq. 1 to 6, weighted as in its code: the std terms of the views averaged."""
    x, y = flat(z1), flat(z2)
    dim = x.shape[1]
    hinge = [np.mean(np.maximum(0, 1 - np.sqrt(z.var(0, ddof=1) + 1e-4))) for z in (x, y)]
    spill = 0.0
    for z in (x, y):
        c = np.cov(z, rowvar=False)
        spill += sum(c[i, j] ** 2 for i in range(dim) for j in range(dim) if i != j) / dim
    return invariance * np.mean((x - y) ** 2) + variance * np.mean(hinge) + covariance * spill


def sample_correlation(z1, z2, *, ids, off_diagonal_weight=5e-3, scale=0.025, held=None):
    """The [batch, batch] variant; its sum over anchors is n times their mean."""
    x, y = (
        (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, keepdims=True) + 1e-5)
        for z in (flat(z1), flat(z2))
    )
    n = len(x)
    values = []
    for i in range(n):
        c = [x[i] @ y[j] / n for j in range(n)]
        spill = sum(c[j] ** 2 for j in range(n) if ids[j] != ids[i])
        values.append(n * scale * ((c[i] - 1) ** 2 + off_diagonal_weight * spill))
    return all_valid(values)
