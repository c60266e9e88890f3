import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from jaxcon.evaluation import linear_probe
from jaxcon.evaluation.linear_probe import (
    few_label_draws,
    few_label_probe,
    linear_probe_accuracy,
)


@pytest.fixture
def blobs():
    """Three overlapping classes in 6 dimensions: 120 train and 90 test rows."""
    rng = np.random.default_rng(0)
    y = np.arange(210) % 3
    x = rng.normal(size=(210, 6)) + 1.5 * rng.normal(size=(3, 6))[y]
    return x[:120], y[:120], x[120:], y[120:]


def _probe(blobs, **changes):
    train_x, train_y, test_x, test_y = blobs
    validation = {"validation_x": train_x[:30], "validation_y": train_y[:30]}
    return linear_probe_accuracy(
        train_x[30:], train_y[30:], test_x, test_y, **(validation | changes)
    )


def test_linear_probe_finds_a_linear_rule_at_any_scale():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(600, 4))
    y = (x[:, 0] + x[:, 1] > 0).astype(int)
    x = x * [1e-4, 1e-4, 1e4, 1.0] + [0, 5, 0, 0]
    found = linear_probe_accuracy(
        x[:300], y[:300], x[400:], y[400:], validation_x=x[300:400], validation_y=y[300:400]
    )
    assert found > 0.97


@pytest.mark.parametrize("scale", [1e-300, 1e-23, 1e-19, 1e19, 1e25, 1e300])
def test_a_scale_that_squares_cannot_hold_changes_nothing(blobs, scale):
    train_x, train_y, test_x, test_y = blobs
    dtype = np.float64 if scale in (1e-300, 1e300) else np.float32
    x = [(rows * scale).astype(dtype) for rows in (train_x, test_x)]
    assert _probe((x[0], train_y, x[1], test_y)) == pytest.approx(_probe(blobs), abs=0.02)
    few = few_label_probe(*blobs, labels_per_class=5, num_draws=10)
    found = few_label_probe(x[0], train_y, x[1], test_y, labels_per_class=5, num_draws=10)
    assert found == pytest.approx(few, abs=0.01)


def test_each_feature_may_have_a_scale_of_its_own(blobs):
    train_x, train_y, test_x, test_y = blobs
    scales = np.array([1e-23, 1e-10, 1.0, 1e10, 1e19, 1e30])
    x = [(rows * scales).astype(np.float32) for rows in (train_x, test_x)]
    assert _probe((x[0], train_y, x[1], test_y)) == pytest.approx(_probe(blobs), abs=0.02)


def test_a_test_row_far_beyond_training_is_counted_and_not_a_crash(blobs):
    train_x, train_y, test_x, test_y = blobs
    far = np.concatenate([test_x, np.full((1, 6), 1e38)]).astype(np.float32)
    found = _probe((train_x * np.float32(1e-30), train_y, far, np.append(test_y, 0)))
    assert 0 <= found <= 1


def test_labels_of_64_bits_stay_different(blobs):
    train_x, train_y, test_x, test_y = blobs
    wide = [y * 2**32 + 5 for y in (train_y, test_y)]  # all of them 5 in 32 bits
    assert _probe((train_x, wide[0], test_x, wide[1])) == _probe(blobs)
    unsigned = (train_x, wide[0].astype(np.uint64), test_x, wide[1])
    assert _probe(unsigned) == _probe(blobs)
    few = few_label_probe(*blobs, labels_per_class=2, num_draws=5)
    assert few_label_probe(*unsigned, labels_per_class=2, num_draws=5) == few
    with pytest.raises(ValueError, match="labels must be whole numbers"):
        list(few_label_draws(np.array([0.5, 1.0]), 1))
    with pytest.raises(ValueError, match="seed must be from 0"):
        list(few_label_draws(train_y, 1, seed=-1))


def _recorded(monkeypatch):
    """What `fit` is called with: rows, strengths."""
    fits = []
    real = linear_probe.fit

    def recorded(x, y, strengths, **settings):
        fits.append((x, list(strengths)))
        return real(x, y, strengths, **settings)

    monkeypatch.setattr(linear_probe, "fit", recorded)
    return fits


def _scikit(rows, labels, c):
    return LogisticRegression(C=c, max_iter=3000, tol=1e-8).fit(rows, labels)


def test_strength_is_chosen_on_validation(blobs, monkeypatch):
    train_x, train_y, test_x, test_y = blobs
    fits, strengths = _recorded(monkeypatch), [1e-4, 1e-3, 1e-2, 1.0]
    found = _probe(blobs, strengths=strengths[::-1])
    mean, deviation = train_x[30:].mean(axis=0), train_x[30:].std(axis=0)
    rows = (train_x - mean) / deviation
    scores = [_scikit(rows[30:], train_y[30:], c).score(rows[:30], train_y[:30]) for c in strengths]
    best = strengths[int(np.argmax(scores))]
    assert [(len(x), c) for x, c in fits] == [(90, strengths), (120, [best])]
    order = np.r_[30:120, 0:30]
    model = _scikit(rows[order], train_y[order], best)
    assert found == pytest.approx(model.score((test_x - mean) / deviation, test_y))


def test_more_features_than_rows_give_the_classifier_of_all_features(blobs, monkeypatch):
    """Fitted in the span of the rows, which is far faster, it predicts what scikit-learn's does."""
    train_x, train_y, test_x, test_y = blobs
    wide = np.random.default_rng(2).normal(size=(6, 400))
    train_x, test_x = ((x @ wide + 0.1 * np.sin(x @ wide)) for x in (train_x, test_x))
    train_x = train_x.astype(np.float32)
    fits = _recorded(monkeypatch)
    found = _probe((train_x, train_y, test_x, test_y), strengths=[0.01])
    assert [x.shape for x, _ in fits] == [(90, 120), (120, 120)]
    scaler = StandardScaler().fit(train_x[30:])
    order = np.r_[30:120, 0:30]
    model = _scikit(scaler.transform(train_x[order]), train_y[order], 0.01)
    expected = model.score(scaler.transform(test_x), test_y)
    assert 0.5 < expected < 1
    assert found == pytest.approx(expected, abs=1.5 / len(test_y))  # a row at the border, perhaps


def test_strengths_out_of_range_are_refused(blobs):
    for strengths in ([], [0.0], [1.0, np.inf], [np.nan]):
        with pytest.raises(ValueError, match="strengths must be above 0 and finite, at least one"):
            _probe(blobs, strengths=strengths)


def test_devices_share_the_rows(blobs):
    alone = _probe(blobs)
    for devices in (jax.devices()[:3], jax.devices()):
        assert _probe(blobs, devices=devices) == pytest.approx(alone, abs=1.5 / 90)
    with pytest.raises(ValueError, match="devices must be some of the 8 of this process"):
        _probe(blobs, devices=[])


def test_test_rows_do_not_take_part_in_the_choice(blobs):
    train_x, train_y, test_x, test_y = blobs
    halves = [
        _probe((train_x, train_y, test_x[rows], test_y[rows]))
        for rows in (slice(45), slice(45, 90))
    ]
    assert np.mean(halves) == pytest.approx(_probe(blobs))


def test_constant_features_change_nothing(blobs):
    train_x, train_y, test_x, test_y = blobs
    wider = [np.concatenate([x, np.full((len(x), 1), 0.1)], axis=1) for x in (train_x, test_x)]
    found = _probe((wider[0], train_y, wider[1], test_y))
    assert found == _probe(blobs)


def test_few_label_probe_equals_ridge_of_scikit_learn(blobs):
    train_x, train_y, test_x, test_y = blobs
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train_x, test_x)]
    accuracies = []
    for rows in few_label_draws(train_y, 4, num_draws=10, seed=7):
        x, targets = unit[0][rows], np.eye(3)[train_y[rows]]
        alpha = 0.5 * np.sum((x - x.mean(axis=0)) ** 2) / len(x)
        scores = Ridge(alpha=alpha).fit(x, targets).predict(unit[1])
        accuracies.append(np.mean(scores.argmax(axis=1) == test_y))
    mean, deviation = few_label_probe(*blobs, labels_per_class=4, num_draws=10, seed=7, penalty=0.5)
    assert mean == pytest.approx(np.mean(accuracies))
    assert deviation == pytest.approx(np.std(accuracies))
    assert deviation > 0


def test_draws_take_n_of_every_class_and_grow_by_prefix():
    labels = np.random.default_rng(0).permutation(np.repeat([3, 5, 9], [10, 20, 2]))
    ones = list(few_label_draws(labels, 1, num_draws=30))
    fives = list(few_label_draws(labels, 5, num_draws=30))
    for one, five in zip(ones, fives, strict=True):
        assert sorted(labels[one]) == [3, 5, 9]
        assert sorted(labels[five]) == [3] * 5 + [5] * 5 + [9] * 2
        assert set(one) <= set(five)
        assert len(set(five)) == len(five)
    assert len({tuple(one) for one in ones}) > 20
    assert np.array_equal(ones[3], list(few_label_draws(labels, 1, num_draws=30))[3])
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(ones, few_label_draws(labels, 1, num_draws=30, seed=1), strict=True)
    )


def test_more_labels_help(blobs):
    means = [few_label_probe(*blobs, labels_per_class=n, num_draws=30)[0] for n in (1, 5, 30)]
    assert means == sorted(means)
    assert means[0] < means[2]


def test_identical_features_give_chance_not_nan():
    x, y = np.ones((12, 4)), np.arange(12) % 3
    found = few_label_probe(x, y, x, y, labels_per_class=2)
    assert found == (pytest.approx(1 / 3), pytest.approx(0))


def test_settings_and_shapes_are_refused(blobs):
    with pytest.raises(ValueError, match="labels_per_class must be at least 1, got 0"):
        few_label_probe(*blobs, labels_per_class=0)
    with pytest.raises(ValueError, match="num_draws must be at least 1, got 0"):
        few_label_probe(*blobs, labels_per_class=1, num_draws=0)
    for penalty in (-1, np.inf, np.nan):
        with pytest.raises(ValueError, match=f"penalty must be above 0 and finite, got {penalty}"):
            few_label_probe(*blobs, labels_per_class=1, penalty=penalty)
    one_class = (blobs[0], np.zeros(120), *blobs[2:])
    with pytest.raises(ValueError, match="at least two classes, got one"):
        few_label_probe(*one_class, labels_per_class=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e3])
def test_collapsed_features_are_at_chance_whatever_the_classes_are_called(value, dtype):
    classes = np.arange(12) % 3
    rows = np.full((12, 7), value, dtype)
    test_y = np.array([0, 0, 0, 1])  # three of one class
    for names in ([0, 1, 2], [2, 1, 0], [-1, 5, 3]):
        train_y, own = np.array(names)[classes], np.array(names)[test_y]
        validation = {"validation_x": rows, "validation_y": train_y}
        probed = linear_probe_accuracy(rows, train_y, rows[:4], own, **validation)
        few = few_label_probe(rows, train_y, rows[:4], own, labels_per_class=2, num_draws=3)
        assert probed == pytest.approx(1 / 3)
        assert few == pytest.approx((1 / 3, 0.0))


def test_a_class_that_only_the_test_rows_have_is_never_found(blobs):
    train_x, train_y, test_x, test_y = blobs
    unknown = np.where(np.arange(len(test_y)) < 30, 9, test_y)
    own = few_label_probe(train_x, train_y, test_x[30:], test_y[30:], labels_per_class=5)
    beside = few_label_probe(train_x, train_y, test_x, unknown, labels_per_class=5)
    assert beside[0] == pytest.approx(own[0] * 60 / 90)
