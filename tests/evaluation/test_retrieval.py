import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon.evaluation.retrieval import chance_recall, recall_at_k


def _slowly(scores, query_ids, candidate_ids, k):
    """Every order of the candidates that sorts the scores, one by one."""
    shares = []
    for row, query in zip(scores.tolist(), query_ids.tolist(), strict=True):
        hits, orders = 0, 0
        for order in itertools.permutations(range(len(row))):
            if all(row[a] >= row[b] for a, b in itertools.pairwise(order)):
                orders += 1
                hits += any(candidate_ids[i] == query for i in order[:k])
        shares.append(hits / orders)
    return sum(shares) / len(shares)


@pytest.mark.parametrize("k", [1, 2, 3, 6, 9])
@pytest.mark.parametrize("levels", [1, 2, 3, 1000])
def test_equals_the_mean_over_all_orders_with_ties_and_duplicates(k, levels):
    rng = np.random.default_rng(10 * levels + k)
    query_ids, candidate_ids = rng.integers(0, 4, 8), rng.integers(0, 4, 6)
    scores = rng.integers(0, levels, (8, 6)) / 7
    found = recall_at_k(scores, query_ids, candidate_ids, k=k)
    assert found == pytest.approx(_slowly(scores, query_ids, candidate_ids, k), abs=1e-12)


def test_without_ties_and_duplicates_it_is_the_share_of_small_ranks():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2500, 300)).astype(np.float32)  # more than two blocks
    own = rng.integers(0, 300, 2500)
    scores[np.arange(2500), own] += 2
    ranks = [1 + sum(row > row[i]) for row, i in zip(scores, own, strict=True)]
    for k in (1, 5, 10):
        share = sum(rank <= k for rank in ranks) / 2500
        assert recall_at_k(scores, own, np.arange(300), k=k) == pytest.approx(share, abs=1e-12)
        assert 0.1 < share < 0.95


@pytest.mark.parametrize("k", [1, 5, 10])
def test_chance_is_the_recall_of_equal_scores_and_of_random_ones(k):
    rng = np.random.default_rng(k)
    query_ids, candidate_ids = rng.integers(0, 30, 200), rng.integers(0, 40, 100)
    chance = chance_recall(query_ids, candidate_ids, k=k)
    right = [int(np.sum(candidate_ids == query)) for query in query_ids]
    expected = [1 - math.comb(100 - r, k) / math.comb(100, k) for r in right]
    assert chance == pytest.approx(np.mean(expected), abs=1e-12)
    equal = recall_at_k(np.full((200, 100), 0.3), query_ids, candidate_ids, k=k)
    assert equal == pytest.approx(chance, abs=1e-12)
    random = [
        recall_at_k(rng.normal(size=(200, 100)), query_ids, candidate_ids, k=k) for _ in range(50)
    ]
    assert np.mean(random) == pytest.approx(chance, abs=5 * np.std(random) / np.sqrt(50))


def test_chance_without_duplicates_is_k_of_n():
    ids = np.arange(1000)
    assert chance_recall(ids, ids, k=10) == pytest.approx(0.01)
    assert chance_recall(ids, ids, k=2000) == 1.0


def test_infinite_scores_and_queries_without_a_right_candidate():
    scores = np.array([[-np.inf, 1.0], [-np.inf, -np.inf]])
    assert recall_at_k(scores, np.array([0, 1]), np.array([0, 1]), k=1) == 0.25
    assert recall_at_k(scores, np.array([5, 6]), np.array([0, 1]), k=2) == 0.0
    assert chance_recall(np.array([5]), np.array([0]), k=1) == 0.0


def test_bad_arguments_are_named():
    ids = np.arange(3)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        recall_at_k(np.eye(3), ids, ids, k=0)
    with pytest.raises(ValueError, match=r"\(3, 2\), got \(3, 3\)"):
        recall_at_k(np.eye(3), ids, ids[:2], k=1)
    with pytest.raises(ValueError, match="row 1 of the scores is NaN"):
        recall_at_k(np.diag([1, np.nan, 1]), ids, ids, k=1)
    with pytest.raises(ValueError, match="query_ids must be a row of at least one id"):
        chance_recall(ids[:0], ids, k=1)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint64, bool, np.float16])
def test_scores_of_any_real_dtype_rank_as_they_are(dtype):
    rng = np.random.default_rng(3)
    levels = 2 if dtype is bool else 5
    scores, query_ids, candidate_ids = rng.integers(0, levels, (8, 6)), *rng.integers(0, 4, (2, 8))
    for k in (1, 2, 5):
        found = recall_at_k(scores.astype(dtype), query_ids, candidate_ids[:6], k=k)
        expected = _slowly(scores, query_ids, candidate_ids[:6], k)
        assert found == pytest.approx(expected, abs=1e-12)
    wide = jnp.asarray(scores, jnp.bfloat16)
    assert recall_at_k(wide, query_ids, candidate_ids[:6], k=5) == pytest.approx(expected)


def test_integers_beyond_the_digits_of_a_float_are_not_ties():
    scores = np.array([[2**62, 2**62 + 1]])
    assert recall_at_k(scores, [7], [7, 8], k=1) == 0.0
    assert recall_at_k(scores, [7], [8, 7], k=1) == 1.0
    assert recall_at_k(-scores, [7], [7, 8], k=1) == 1.0


def test_ids_of_64_bits_are_never_taken_for_each_other():
    ids = np.array([5, 5 + 2**32, 5 + 2**33])
    assert recall_at_k(np.roll(np.eye(3), 1, axis=1), ids, ids, k=1) == 0.0
    assert chance_recall(ids, ids, k=1) == pytest.approx(1 / 3)
    assert (
        recall_at_k(np.ones((1, 2)), np.array([2**63], np.uint64), np.array([2**63 - 1, 0]), k=2)
        == 0
    )
    with pytest.raises(ValueError, match="query_ids must be whole numbers, in float32"):
        recall_at_k(np.eye(3), ids.astype(np.float32), ids, k=1)


def test_scores_without_an_order_are_refused():
    ids = np.arange(2)
    for scores in (np.eye(2) * 1j, np.array([["a", "b"]] * 2), np.array([[None, 1]] * 2)):
        with pytest.raises(ValueError, match="scores must be real numbers, got dtype"):
            recall_at_k(scores, ids, ids, k=1)
    for dtype in (np.float16, np.float64):
        with pytest.raises(ValueError, match="row 0 of the scores is NaN"):
            recall_at_k(np.array([[np.nan, 1], [0, 1]], dtype), ids, ids, k=1)
    with pytest.raises(ValueError, match=r"k must be a whole number, got 1\.5"):
        recall_at_k(np.eye(2), ids, ids, k=1.5)
