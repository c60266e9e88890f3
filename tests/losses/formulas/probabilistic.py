"""The formulas of jaxcon/losses/probabilistic.py."""

import numpy as np

from tests.losses.formulas.anchors import all_valid, flat, minus_log_share, unit


def gaussian_clip(z1, z2, log_std1, log_std2, *, ids, exact=False, held=None):
    """Cross-entropies of rows of A and of columns of B, as the post writes them."""
    x, y = flat(z1), flat(z2)
    n, dim = x.shape
    factor, half = (dim, 2) if exact else (1, 1)
    d = np.array([[np.sum((x[a] - y[b]) ** 2) for b in range(n)] for a in range(n)])
    a = np.array(
        [
            [-factor * l - d[i, j] / half / np.exp(l) ** 2 for j, l in enumerate(log_std2)]
            for i in range(n)
        ]
    )
    b = np.array(
        [
            [-factor * k - d[i, j] / half / np.exp(k) ** 2 for j in range(n)]
            for i, k in enumerate(log_std1)
        ]
    )
    values = []
    for i in range(n):
        other = [j for j in range(n) if ids[j] != ids[i]]
        forward = minus_log_share(a[i, i], [a[i, j] for j in other])
        backward = minus_log_share(b[i, i], [b[j, i] for j in other])
        values.append((forward + backward) / 2)
    return all_valid(values)


def csd(z1, z2, log_std1, log_std2, *, ids, scale=5.0, shift=5.0, held=None):
    """Chun 2023, eq. 2 (closed-form sampled distance) and eq. 3 (binary cross-entropy)."""
    x, y = unit(z1), unit(z2)
    n, dim = x.shape
    var1, var2 = (
        np.exp(2 * flat(np.broadcast_to(v.reshape(n, -1), (n, dim)))) for v in (log_std1, log_std2)
    )
    values = []
    for i in range(n):
        terms = []
        for j in range(n):
            distance = np.sum((x[i] - y[j]) ** 2 + var1[i] + var2[j])
            match = 1 / (1 + np.exp(scale * distance - shift))
            if i == j:
                terms.append(-np.log(match))
            elif ids[i] != ids[j]:
                terms.append(-np.log(1 - match))
        values.append(np.mean(terms))
    return all_valid(values)
