"""The formulas of jaxcon/losses/mining.py."""

import numpy as np

from tests.losses.formulas.anchors import Anchors, peers_and_others, unit


def every_triplet(positive, negatives, distances, margin):
    """All (p, n)."""
    return [(p, n) for p in positive for n in negatives]


def semi_hard_triplets(positive, negatives, distances, margin):
    """FaceNet, eq. 4: the negative is farther than the positive."""
    return [(p, n) for p in positive for n in negatives if distances[n] > distances[p]]


def hardest_triplet(positive, negatives, distances, margin):
    """Hermans et al. 2017, eq. 5: the farthest positive with the nearest negative."""
    if not positive or not negatives:
        return []
    return [(max(positive, key=lambda p: distances[p]), min(negatives, key=lambda n: distances[n]))]


def triplet(mine):
    """Schroff et al. 2015, eq. 3 over the triplets that `mine` chooses: the mean of those above 0."""

    def formula(z, labels, *, ids, margin=0.2, mining=None, held=None):
        u = unit(z)
        values, count = [], []
        for i in range(len(u)):
            distances = [np.linalg.norm(u[i] - row) for row in u]
            chosen = mine(*peers_and_others(labels, ids, i), distances, margin)
            hinges = [distances[p] - distances[n] + margin for p, n in chosen]
            active = [h for h in hinges if h > 0]
            values.append(np.mean(active) if active else 0.0)
            count.append(len(active))
        return Anchors(np.array(values), np.array(count) > 0, np.array(count, float))

    return formula
