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
