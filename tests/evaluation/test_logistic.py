"""Logistic regression on the devices, beside scikit-learn's: the same optimum, never a higher one."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jaxcon.data.sources import load
from jaxcon.evaluation import logistic
from jaxcon.evaluation.linear_probe import STRENGTHS, linear_probe_accuracy
from jaxcon.evaluation.logistic import fit
from tests.marks import slow_unless


def _classes(n, dim, classes, *, seed=0, spread=1.0):
    """Overlapping classes, with features that are correlated and about standardized."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = rng.normal(size=(n, dim)) + spread * rng.normal(size=(classes, dim))[y]
    x = x @ (np.eye(dim) + rng.normal(size=(dim, dim)) / 2)
    return ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32), y


def _objective(weights, bias, x, y, c):
    scores = x.astype(np.float64) @ weights + bias
    largest = scores.max(axis=1, keepdims=True)
    logs = np.log(np.exp(scores - largest).sum(axis=1)) + largest[:, 0]
    return (logs - scores[np.arange(len(y)), y]).mean() + (weights**2).sum() / (2 * c * len(y))


@pytest.mark.parametrize("shift", slow_unless([3.0].__contains__, [0.0, 3.0]))
def test_every_strength_is_at_the_optimum_of_scikit_learn(shift):
    x, y = _classes(300, 8, 4)
    x = x + np.float32(shift)  # the bias pays no penalty, so that only it changes
    models = fit(x, y, STRENGTHS, classes=4, devices=jax.devices()[:1])
    for c, model in zip(STRENGTHS, models, strict=True):
        oracle = LogisticRegression(C=c, max_iter=5000, tol=1e-9).fit(x, y)
        best = _objective(oracle.coef_.T, oracle.intercept_, x, y, c)
        found = _objective(model.weights, model.bias, x, y, c)
        assert best - 1e-6 < found < best + 2e-4
        odds = np.exp(model.scores(x) - model.scores(x).max(axis=1, keepdims=True))
        odds /= odds.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(odds, oracle.predict_proba(x), atol=0.02)


@pytest.mark.parametrize("devices", [1, 3, 8])
def test_tiles_and_devices_change_nothing(devices, monkeypatch):
    x, y = _classes(101, 5, 3)
    whole = fit(x, y, [0.1, 1.0], classes=3, devices=jax.devices()[:1])
    monkeypatch.setattr(logistic, "_SCORES", 100)  # 17 rows in a tile
    tiled = fit(x, y, [0.1, 1.0], classes=3, devices=jax.devices()[:devices])
    for a, b in zip(whole, tiled, strict=True):
        np.testing.assert_allclose(a.weights, b.weights, atol=1e-3)
        np.testing.assert_allclose(a.bias, b.bias, atol=1e-3)


def test_a_class_without_rows_is_never_predicted():
    x, y = _classes(60, 4, 3)
    (model,) = fit(x, 2 * y, [1.0], classes=6, devices=jax.devices()[:1])
    (own,) = fit(x, y, [1.0], classes=3, devices=jax.devices()[:1])
    assert (model.bias == -np.inf).tolist() == [False, True, False, True, False, True]
    np.testing.assert_allclose(model.scores(x)[:, ::2], own.scores(x), atol=1e-3)


def _scikit_accuracy(train, validation, test):
    """The protocol with scikit-learn's model in place of ours."""
    mean, deviation = train[0].mean(axis=0), train[0].std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1)
    x = [(rows - mean) / deviation for rows, _ in (train, validation, test)]

    def model(rows, labels, c):
        return LogisticRegression(C=c, max_iter=300).fit(rows, labels)

    scores = [model(x[0], train[1], c).score(x[1], validation[1]) for c in STRENGTHS]
    best = STRENGTHS[int(np.argmax(scores))]
    both = np.concatenate(x[:2]), np.concatenate([train[1], validation[1]])
    return model(*both, best).score(x[2], test[1])


def _agree(*splits):
    (train, validation, test) = splits
    expected = _scikit_accuracy(*splits)
    found = linear_probe_accuracy(
        *train, *test, validation_x=validation[0], validation_y=validation[1]
    )
    assert found == pytest.approx(expected, abs=0.003)
    assert 0.5 < found < 1


def test_digits_within_three_tenths_of_a_point():
    digits = load("digits")
    _agree(
        *(
            (split.images.reshape(len(split), -1).astype(np.float32), split.labels)
            for split in (digits.train, digits.validation, digits.test)
        )
    )


@pytest.mark.slow
def test_twenty_thousand_rows_of_512_within_three_tenths_of_a_point():
    x, y = _classes(30_000, 512, 10, spread=0.15)
    parts = slice(20_000), slice(20_000, 24_000), slice(24_000, 30_000)
    _agree(*((x[part], y[part]) for part in parts))
