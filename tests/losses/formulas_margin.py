"""The margin, predictive and regularizer losses as the papers print them: float64 NumPy loops.

Nothing here is shared with jaxcon. A formula takes the rows that count and returns, per anchor, its
value and its weight in the mean: 0 for one that leaves the mean, the number of active triplets for the
triplet loss, else 1. Losses without anchors return a scalar. ``held`` are the embeddings again: what
a paper holds constant in the gradient is read from there.
"""

import itertools

import numpy as np


def unit(z):
    return np.stack([row / np.sqrt(row @ row) if np.any(row) else row for row in z])


def relations(labels, ids, i):
    """Positives and negatives of row i."""
    n = len(labels)
    positives = [j for j in range(n) if j != i and labels[j] == labels[i]]
    negatives = [j for j in range(n) if labels[j] != labels[i] and ids[j] != ids[i]]
    return positives, negatives


def every_triplet(d, positives, negatives, margin):
    return list(itertools.product(positives, negatives))


def semi_hard_triplets(d, positives, negatives, margin):
    pairs = itertools.product(positives, negatives)
    return [(p, n) for p, n in pairs if d[p] < d[n] < d[p] + margin]


def hardest_triplet(d, positives, negatives, margin):
    if not positives or not negatives:
        return []
    return [(max(positives, key=lambda p: d[p]), min(negatives, key=lambda n: d[n]))]


def triplet(z, labels, *, ids, margin=0.2, mined=every_triplet, held=None):
    """FaceNet eq. 3 on distances; the mean over the triplets above 0."""
    u = unit(z)
    values, counts = [], []
    for i in range(len(u)):
        d = [np.sqrt(np.sum((u[i] - row) ** 2)) for row in u]
        triplets = mined(d, *relations(labels, ids, i), margin)
        hinges = [d[p] - d[n] + margin for p, n in triplets]
        active = [h for h in hinges if h > 0]
        values.append(np.mean(active) if active else 0.0)
        counts.append(len(active))
    return np.array(values), np.array(counts, float)


def multi_similarity(z, labels, *, ids, alpha=2.0, beta=50.0, base=0.5, held=None):
    """Wang et al. 2019, eq. 15."""
    u = unit(z)
    values = []
    for i in range(len(u)):
        positives, negatives = relations(labels, ids, i)
        pull = sum(np.exp(-alpha * (u[i] @ u[j] - base)) for j in positives)
        push = sum(np.exp(beta * (u[i] @ u[j] - base)) for j in negatives)
        values.append(np.log(1 + pull) / alpha + np.log(1 + push) / beta)
    return np.array(values), np.ones(len(u))


def circle(z, labels, *, ids, margin=0.4, gamma=80.0, held=None):
    """Sun et al. 2020, eq. 6 with the weights of eq. 5 held constant, margins as in section 3.3."""
    u = unit(z)
    h = unit(z if held is None else held[0])
    values, valid = [], []
    for i in range(len(u)):
        positives, negatives = relations(labels, ids, i)
        near = [max(0, h[i] @ h[j] + margin) * (u[i] @ u[j] - margin) for j in negatives]
        far = [max(0, 1 + margin - h[i] @ h[j]) * (u[i] @ u[j] - 1 + margin) for j in positives]
        exponents = [gamma * (a - b) for a in near for b in far]
        valid.append(float(bool(exponents)))
        values.append(np.logaddexp.reduce([0.0, *exponents]))
    return np.array(values), np.array(valid)


def spectral(z1, z2, *, ids, held=None):
    """HaoChen et al. 2021, eq. 6, on a batch: the other examples' second views are the negatives."""
    values = []
    for i in range(len(z1)):
        squares = [(z1[i] @ z2[j]) ** 2 for j in range(len(z2)) if ids[j] != ids[i]]
        values.append(-2 * z1[i] @ z2[i] + (np.mean(squares) if squares else 0.0))
    return np.array(values), np.ones(len(z1))


def cosine_regression(predictions, targets, *, held=None):
    """BYOL eq. 2."""
    p, t = unit(predictions), unit(targets if held is None else held[1])
    return np.array([2 - 2 * a @ b for a, b in zip(p, t, strict=True)]), np.ones(len(p))


def alignment(z1, z2, *, alpha=2.0, held=None):
    """Wang and Isola 2020, section 4.1."""
    pairs = zip(unit(z1), unit(z2), strict=True)
    return np.array([np.linalg.norm(a - b) ** alpha for a, b in pairs]), np.ones(len(z1))


def uniformity(z, *, t=2.0, held=None):
    """Wang and Isola 2020, section 4.1."""
    u = unit(z)
    pairs = itertools.combinations(range(len(u)), 2)
    potentials = [np.exp(-t * np.sum((u[i] - u[j]) ** 2)) for i, j in pairs]
    return np.log(np.mean(potentials)) if potentials else 0.0


def koleo(z, *, held=None):
    """Sablayrolles et al. 2019, eq. 2."""
    u = unit(z)
    values = []
    for i in range(len(u)):
        gaps = [np.linalg.norm(u[i] - u[j]) for j in range(len(u)) if j != i]
        values.append(-np.log(min(gaps) + 1e-8) if gaps else 0.0)
    return np.array(values), np.full(len(u), float(len(u) > 1))


def variance(z, *, held=None):
    """VICReg eq. 1."""
    hinges = []
    for column in z.T:
        centre = sum(column) / len(column)
        spread = sum((v - centre) ** 2 for v in column) / (len(column) - 1)
        hinges.append(max(0.0, 1 - np.sqrt(spread + 1e-4)))
    return sum(hinges) / len(hinges)
