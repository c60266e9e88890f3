"""Pairs that luck alone may find: how many are too many for it, and that these alone are healthy."""

import itertools
import math

import numpy as np
import pytest

from tests.diagnostics.reports import kind, report

RNG = np.random.default_rng(0)


def hits(order, best):
    """Rows whose pair is the nearest, ties in equal parts, if row i's pair is row order[i]."""
    return sum(order[i] in columns and 1 / len(columns) for i, columns in enumerate(best))


def nearest(z1, z2):
    """Of each row of z1 the set of rows of z2 with the highest cosine."""
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z1, z2)]
    cosines = (unit[0] @ unit[1].T).round(6)
    return [set(np.flatnonzero(row == row.max())) for row in cosines]


@pytest.mark.parametrize(
    "best",
    [
        nearest(*np.random.default_rng(0).normal(size=(2, 7, 2))),
        nearest(*np.random.default_rng(1).normal(size=(2, 7, 16))),
        nearest(*np.random.default_rng(2).integers(0, 2, (2, 7, 2)) + 0.5),  # many ties
        [{i} for i in range(7)],
        [set(range(7))] * 7,
        [{0, 1}, {0, 1}, {2, 3}, {2, 3}, {4}, {5}, {4, 5, 6}],
    ],
)
def test_k_unrelated_rows_find_their_pairs_in_at_most_one_of_k_factorial_batches(best):
    """All 5,040 matchings of 7 rows: the level on which "healthy" rests, exactly."""
    found = [hits(order, best) for order in itertools.permutations(range(7))]
    for k in range(1, 8):
        assert sum(f > k - 1e-9 for f in found) * math.factorial(k) <= 5040


@pytest.mark.parametrize(
    ("n", "dim"), [(2, 16), (3, 2), (7, 1), (7, 16), (8, 2), (16, 8), (64, 32)]
)
def test_unrelated_rows_are_never_healthy(n, dim):
    rng = np.random.default_rng(10 * n + dim)
    for _ in range(20):
        z1, z2 = rng.normal(size=(2, n, dim)).astype(np.float32)
        assert kind(z1, z2) != "healthy"


@pytest.mark.parametrize("n", [2, 3, 6])
def test_few_perfect_pairs_are_neither_unaligned_nor_healthy(n):
    for dim in (2, 16):
        z = np.random.default_rng(n).normal(size=(n, dim))
        z[0] *= -np.sign(z[0] @ z[1])  # no two of two in a cone by chance
        verdict = report(z).verdict
        assert verdict.startswith("undecided")
        assert f"100 % find their pair, but {n} pairs are too few to tell that from luck" in verdict


@pytest.mark.parametrize("n", [7, 16])
def test_perfect_pairs_from_seven_on_are_healthy(n):
    z = np.random.default_rng(n).normal(size=(n, 16))
    assert kind(z) == kind(z, temperature=0.05) == "healthy"


@pytest.mark.parametrize(("own", "expected"), [(3, "unaligned"), (5, "undecided"), (9, "healthy")])
def test_as_many_find_their_pair_as_the_verdict_says(own, expected):
    z1, z2 = np.eye(40), np.eye(40)
    z2[own:] = np.roll(z1[own:], 1, axis=0)
    result = report(z1, z2)
    assert result.accuracy * 40 == pytest.approx(own)
    assert result.verdict.startswith(expected)
    assert f"{100 * own / 40:.0f} % find their pair" in result.verdict
    if expected == "undecided":
        assert "which luck alone does in up to 1 of 120 batches" in result.verdict


def test_a_loss_above_chance_is_healthy_only_if_most_pairs_are_found():
    """A few percent of many pairs are more than luck, and yet nothing to be content with."""
    rng = np.random.default_rng(4)
    common = rng.normal(size=(128, 6))
    few = rng.normal(size=(2, 128, 6)) + 1.1 * common
    result = report(*few, temperature=0.1)
    assert result.accuracy * 128 >= 7
    assert result.relative_loss > 1
    assert result.verdict.startswith("unaligned")
    assert "if more than by luck; the loss is 1." in result.verdict
    most = 0.3 * rng.normal(size=(2, 128, 6)) + common
    result = report(*most, temperature=0.003)
    assert result.accuracy > 0.5
    assert result.relative_loss > 1
    assert result.verdict.startswith("healthy")


@pytest.mark.parametrize(("own", "expected"), [(24, "unaligned"), (33, "healthy")])
def test_of_many_rows_a_tenth_find_their_pair_in_health(own, expected):
    """8 of 100 are no luck of 300 rows, and yet nothing to call healthy, whatever the loss."""
    z1, z2 = np.eye(300), np.eye(300)
    z2[own:] = np.roll(z1[own:], 1, axis=0) + 0.9 * z1[own:]
    result = report(z1, z2, temperature=0.5)
    assert result.accuracy * 300 == pytest.approx(own)
    assert result.relative_loss < 0.995
    assert result.verdict.startswith(expected)


def test_unrelated_rows_are_unaligned():
    z1, z2 = RNG.normal(size=(2, 64, 32)).astype(np.float32)
    assert report(z1, z2).verdict.startswith("unaligned")
