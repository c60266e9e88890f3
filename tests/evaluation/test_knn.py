import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon.evaluation.knn import knn_accuracy


def _slowly(train_x, train_y, test_x, test_y, k, temperature):
    """One test row at a time, in plain Python."""
    hits = 0
    for row, label in zip(test_x, test_y, strict=True):
        cosines = [row @ other / np.sqrt((row @ row) * (other @ other)) for other in train_x]
        votes = dict.fromkeys(sorted(set(train_y.tolist())), 0.0)
        for i in sorted(range(len(train_x)), key=lambda i: -cosines[i])[:k]:
            votes[int(train_y[i])] += np.exp(cosines[i] / temperature)
        hits += max(votes, key=votes.__getitem__) == label
    return hits / len(test_x)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.07), (20, 10.0)])
def test_equals_a_slow_loop(k, temperature):
    rng = np.random.default_rng(k)
    labels = rng.integers(0, 4, 60) * 3 + 1
    x = rng.normal(size=(60, 5)) + rng.normal(size=(13, 5))[labels]
    arguments = (x[:40], labels[:40], x[40:], labels[40:])
    found = knn_accuracy(*arguments, k=k, temperature=temperature)
    assert found == _slowly(*arguments, k, temperature)
    assert 0.2 < found < 1


def test_scale_of_rows_and_shape_of_features_do_not_matter():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 2, 3)), rng.integers(0, 3, 50)
    scale = np.float64(10.0) ** rng.integers(-25, 25, (50, 1, 1))
    expected = knn_accuracy(x[:30], y[:30], x[30:], y[30:], k=3)
    assert knn_accuracy(x[:30] * scale[:30], y[:30], x[30:], y[30:], k=3) == expected


def test_k_may_exceed_the_training_rows():
    x, y = np.eye(3), np.array([0, 1, 2])
    assert knn_accuracy(x, y, x, y, k=20) == 1.0


def test_settings_and_shapes_are_refused():
    x, y = np.eye(3), np.arange(3)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        knn_accuracy(x, y, x, y, k=0)
    with pytest.raises(ValueError, match="temperature must be above 0, got nan"):
        knn_accuracy(x, y, x, y, temperature=float("nan"))
    with pytest.raises(ValueError, match="test: 3 rows of features need as many labels"):
        knn_accuracy(x, y, x, y[:2])
    with pytest.raises(ValueError, match="train: 1 rows of features are not finite"):
        knn_accuracy(np.where(x > 0, [1, np.inf, 1], x), y, x, y)


def _over_all_orders(train_x, train_y, row, label, k, temperature):
    """Every order of the training rows that sorts the cosines; equal votes share the win."""
    unit = train_x / np.linalg.norm(train_x, axis=1, keepdims=True)
    cosines = (unit @ row / np.linalg.norm(row)).round(9)
    shares = []
    for order in itertools.permutations(range(len(train_x))):
        if all(cosines[a] >= cosines[b] for a, b in itertools.pairwise(order)):
            votes = {}
            for i in order[:k]:
                votes[train_y[i]] = votes.get(train_y[i], 0) + np.exp(
                    (cosines[i] - cosines.max()) / temperature
                )
            winners = [y for y, v in votes.items() if np.isclose(v, max(votes.values()))]
            shares.append((label in winners) / len(winners))
    return np.mean(shares)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("temperature", [0.07, 10.0, 1e-3])
def test_ties_are_expectations_over_all_orders(k, temperature):
    rng = np.random.default_rng(k)
    for _ in range(6):
        train_x = rng.integers(0, 2, (7, 2)) + np.array([0.0, 0.5])  # few directions, many ties
        train_y, row = rng.integers(0, 3, 7), rng.integers(1, 3, 2).astype(float)
        expected = [_over_all_orders(train_x, train_y, row, y, k, temperature) for y in range(4)]
        found = [
            knn_accuracy(train_x, train_y, row[None], np.array([y]), k=k, temperature=temperature)
            for y in range(4)
        ]
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_equal_rows_give_the_share_of_their_labels_in_any_order_under_any_name():
    for labels in ([0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 0], [7, 1, 1, 1]):
        x, y = np.ones((4, 3)) * [[1], [2], [3], [0.1]], np.array(labels)
        assert knn_accuracy(x, y, x[:1], np.array([1]), k=1) == 0.75
        assert knn_accuracy(x, y, x[:1], np.array([1]), k=2) == pytest.approx(0.75)
        assert knn_accuracy(x, y, x[:1], np.array([1]), k=4) == 1.0


def test_a_collapsed_encoder_is_at_chance():
    x, y = np.full((600, 8), 0.3, np.float32), np.repeat(np.arange(20), 30)
    assert knn_accuracy(x, y, x[:40], y[::15]) == pytest.approx(1 / 20)
    assert knn_accuracy(0 * x, y, 0 * x[:40], y[::15]) == pytest.approx(1 / 20)


def test_labels_of_any_size_and_dtype_stay_different():
    x, large = np.eye(2), 2**32
    for y in ([5, 5 + large], np.array([5, 5 + large]), [-1, 2**63], [5, 5 + 2**70], ["a", "b"]):
        assert knn_accuracy(x, y, x, y, k=1) == 1.0
        assert knn_accuracy(x, y, x, list(y)[::-1], k=1) == 0.0
    # int64 beside uint64, of which NumPy makes float64, where both are 2^63
    train, test = np.array([1, 2**63 - 1]), np.array([1, 2**63], np.uint64)
    assert knn_accuracy(x, train, x, test, k=1) == 0.5
    for y in (np.array([0.0, 0.5]), np.array([0.0, np.nan]), np.array([0.0, 2.0**60]), [0, None]):
        with pytest.raises(ValueError, match="train: labels must be whole numbers"):
            knn_accuracy(x, y, x, np.arange(2))
    with pytest.raises(ValueError, match="all numbers or all names"):
        knn_accuracy(x, ["a", "b"], x, [0, 1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, np.int64, bool])
def test_features_of_any_real_dtype(dtype):
    x = np.eye(3).astype(dtype)
    assert knn_accuracy(x, np.arange(3), x, np.arange(3), k=1) == 1.0
    assert knn_accuracy(jnp.eye(3, dtype=jnp.bfloat16), np.arange(3), x, np.arange(3), k=1) == 1.0


def test_what_cannot_be_compared_is_named():
    x, y = np.eye(3), np.arange(3)
    with pytest.raises(ValueError, match=r"k must be a whole number, got 2\.5"):
        knn_accuracy(x, y, x, y, k=2.5)
    with pytest.raises(ValueError, match="train has 3, test has 2"):
        knn_accuracy(x, y, x[:, :2], y)
    with pytest.raises(ValueError, match="train: features must be real numbers, got dtype complex"):
        knn_accuracy(x * 1j, y, x, y)
    with pytest.raises(ValueError, match="at least one"):
        knn_accuracy(x[:0], y[:0], x, y)
