"""The losses as the papers print them: float64 NumPy, one anchor at a time, nothing shared with jaxcon.

A formula takes the rows that count (masked ones are taken out by the caller), the ``ids`` and
``labels`` of the rows, and the settings. It returns a value per anchor and whether that anchor counts,
or a scalar where the loss has no anchors. ``held`` are the arguments again: where a paper holds a
factor constant in the gradient, the formula reads it from there, so that a finite difference in the
arguments alone is the gradient that the paper means.
"""

from typing import NamedTuple

import numpy as np


class Anchors(NamedTuple):
    """A value per anchor, which anchors enter the mean, and (triplet) how often; None: once."""

    values: np.ndarray
    valid: np.ndarray
    count: np.ndarray | None = None


def unit(z):
    """Rows of length 1."""
    z = z.reshape(len(z), -1)
    return np.stack([row / np.sqrt(np.sum(row * row)) if np.any(row) else row for row in z])


def flat(z):
    """Rows as they are."""
    return z.reshape(len(z), -1)


def log_sum_exp(terms):
    """Log of the sum of exponentials of a list; minus infinity for none."""
    terms = np.asarray(terms, np.float64)
    return np.max(terms) + np.log(np.sum(np.exp(terms - np.max(terms)))) if terms.size else -np.inf


def minus_log_share(good, others):
    """-log(e^good / (e^good + sum e^others)) without the cancellation of aligned pairs."""
    return np.log1p(np.sum(np.exp(np.asarray(others) - good))) if len(others) else 0.0


def cross_entropy(positives, negatives, smoothing=0.0):
    """Mean over the positives of the cross-entropy among all candidates, with smoothed targets."""
    candidates = [*positives, *negatives]
    hard = np.mean(
        [
            minus_log_share(candidates[k], candidates[:k] + candidates[k + 1 :])
            for k in range(len(positives))
        ]
    )
    return hard + smoothing * (np.mean(positives) - np.mean(candidates))


def all_valid(values):
    """Every row an anchor that counts."""
    return Anchors(np.array(values), np.ones(len(values), bool))


def two_views(z1, z2, ids):
    """All 2N rows; for each its own logit partner and the rows of other examples."""
    n = len(z1)
    u = np.concatenate([unit(z1), unit(z2)])
    twice = np.concatenate([ids, ids])
    partner = [(i + n) % (2 * n) for i in range(2 * n)]
    negatives = [[j for j in range(2 * n) if twice[j] != twice[i]] for i in range(2 * n)]
    return u, partner, negatives


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


def info_nce(
    z1,
    z2,
    extra=None,
    *,
    ids,
    labels=None,
    negatives=None,
    negative_ids=None,
    temperature=0.07,
    in_batch=True,
    held=None,
):
    """CPC, eq. 4; MoCo, eq. 1. ``extra`` are an anchor's own negatives, ``negatives`` everyone's."""
    x, y = unit(z1), unit(z2)
    labels = np.arange(len(x)) if labels is None else labels
    values = []
    for i in range(len(x)):
        positives, others = [x[i] @ y[i] / temperature], []
        if in_batch:
            batch = range(len(y))
            positives = [x[i] @ y[j] / temperature for j in batch if labels[j] == labels[i]]
            others = [
                x[i] @ y[j] / temperature
                for j in batch
                if labels[j] != labels[i] and ids[j] != ids[i]
            ]
        if negatives is not None:
            for k, row in enumerate(unit(negatives)):
                if negative_ids is None or negative_ids[k] != ids[i]:
                    others.append(x[i] @ row / temperature)
        if extra is not None:
            others += [x[i] @ row / temperature for row in unit(extra[i])]
        values.append(cross_entropy(positives, others))
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


def softplus(x):
    """log(1 + e^x)."""
    return np.logaddexp(0.0, x)


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


def peers_and_others(labels, ids, i):
    """The other rows of i's label; the rows of other labels that are no duplicates of i."""
    rest = [j for j in range(len(labels)) if j != i]
    peers = [j for j in rest if labels[j] == labels[i]]
    return peers, [j for j in rest if labels[j] != labels[i] and ids[j] != ids[i]]


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
    """Schroff et al. 2015, eq. 3 over the triplets that ``mine`` chooses: the mean of those above 0."""

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


def cosine_regression(predictions, targets, *, held=None):
    """Grill et al. 2020, eq. 2: the target network receives no gradient."""
    p, t = unit(predictions), unit(held[1] if held else targets)
    return all_valid([np.sum((a - b) ** 2) for a, b in zip(p, t, strict=True)])


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
