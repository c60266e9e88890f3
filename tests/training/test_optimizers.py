"""Optimizers: schedules by their formula, decay where it belongs, and every one of them learns."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcon.training.optimizers import adamw, keep_between, lars, warmup_cosine
from tests.training.toy import BUILDS

PARAMS = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2), "temperature": jnp.ones(())}


def test_the_schedule_is_its_formula():
    schedule = warmup_cosine(0.8, warmup_steps=10, total_steps=50)
    for step in range(10):
        first = 0.8 / 11
        assert float(schedule(step)) == pytest.approx(first + (0.8 - first) * step / 10, abs=1e-6)
    for step in range(10, 51):
        falling = 0.4 * (1 + math.cos(math.pi * (step - 10) / 40))
        assert float(schedule(step)) == pytest.approx(falling, abs=1e-6)


def test_without_warm_up_it_begins_at_the_peak():
    assert float(warmup_cosine(0.3, warmup_steps=0, total_steps=9)(0)) == pytest.approx(0.3)


@pytest.mark.parametrize("warmup", [10, 11])
def test_a_warm_up_longer_than_the_run_is_refused(warmup):
    with pytest.raises(ValueError, match="warm up for less or train for longer"):
        warmup_cosine(0.1, warmup_steps=warmup, total_steps=10)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("peak", -0.1),
        ("peak", 0),
        ("peak", math.nan),
        ("warmup_steps", -1),
        ("warmup_steps", 1.5),
        ("total_steps", 0),
        ("total_steps", True),
    ],
)
def test_a_schedule_of_numbers_out_of_range_is_refused(name, value):
    settings = {"peak": 0.1, "warmup_steps": 2, "total_steps": 10, name: value}
    refused(name, value, lambda: warmup_cosine(settings.pop("peak"), **settings))


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clip_norm", -1),
        ("clip_norm", 0),
        ("clip_norm", math.nan),
        ("clip_norm", "1"),
        ("weight_decay", -1e-4),
        ("weight_decay", math.inf),
        ("weight_decay", None),
    ],
)
def test_an_optimizer_of_numbers_out_of_range_is_refused(build, name, value):
    refused(name, value, lambda: build(optax.constant_schedule(0.1), **{name: value}))


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize(
    "schedule", [optax.constant_schedule(-0.1), -0.1], ids=["callable", "number"]
)
def test_a_negative_rate_is_refused(build, schedule):
    refused("schedule", -0.1, lambda: build(schedule))


def refused(name, value, build):
    """By one line with the name and what came."""
    with pytest.raises(ValueError, match=rf"^{name}\b.*expected a .*, got ") as error:
        build()
    assert str(error.value).endswith(str(value))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("build", BUILDS)
def test_decay_shrinks_kernels_alone(build):
    optimizer = build(optax.constant_schedule(0.1), weight_decay=0.5)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = optimizer.update(zeros, optimizer.init(PARAMS), PARAMS)
    assert np.all(np.asarray(updates["kernel"]) < 0)
    assert not np.any(updates["bias"])
    assert not np.any(updates["temperature"])


@pytest.mark.parametrize("build", BUILDS)
def test_a_clipped_gradient_is_as_good_as_a_short_one(build):
    settings = {"weight_decay": 0.0, "clip_norm": 1.0}
    optimizer = build(optax.constant_schedule(0.1), **settings)
    state = optimizer.init(PARAMS)
    gradients = jax.tree.map(lambda x: 1e6 * x, PARAMS)
    short = jax.tree.map(lambda x: x / 3.0, PARAMS)  # norm of nine ones: 3
    long_update, _ = optimizer.update(gradients, state, PARAMS)
    short_update, _ = optimizer.update(short, state, PARAMS)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), long_update, short_update
    )


@pytest.mark.parametrize("build", BUILDS)
def test_every_optimizer_finds_a_minimum(build):
    rate = 5.0 if build is lars else 0.05  # its trust ratio is of thousandths
    target = jnp.array([[1.0, -2.0], [0.5, 3.0]])
    optimizer = build(warmup_cosine(rate, warmup_steps=5, total_steps=200), weight_decay=0.0)

    def loss(params):
        return jnp.mean((params["kernel"] - target) ** 2)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params = {"kernel": jnp.ones((2, 2))}
    state, first = optimizer.init(params), float(loss(params))
    for _ in range(200):
        params, state = step(params, state)
    assert float(loss(params)) < 0.05 * first


@pytest.mark.parametrize("build", BUILDS)
def test_parameters_are_kept_between_their_bounds_to_the_float(build):
    """Steps of every size, from anywhere: the sum of floats never leaves, and a bound can be left."""
    bounds = {"log_temperature": (math.log(0.01), math.log(10.0)), "a/b": (-0.1, 0.3)}
    optimizer = keep_between(build(optax.constant_schedule(0.7)), bounds)
    rng = np.random.default_rng(0)
    params = {
        "tower": {"log_temperature": jnp.zeros(()), "kernel": jnp.ones((2, 2))},
        "a": {"b": jnp.zeros(3)},
        "b": jnp.zeros(3),
    }

    @jax.jit
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state, seen = optimizer.init(params), []
    for _ in range(60):
        gradient = jax.tree.map(lambda p: jnp.float32(5 * rng.normal(size=p.shape)), params)
        params, state = step(params, state, gradient)
        seen.append(jax.device_get((params["tower"]["log_temperature"], params["a"]["b"])))
    values, others = (np.array(v) for v in zip(*seen, strict=True))
    low, high = np.float32(bounds["log_temperature"])
    assert (values >= low).all()
    assert (values <= high).all()
    assert ((values > low) & (values < high)).any()
    assert (others >= np.float32(-0.1)).all()
    assert (others <= np.float32(0.3)).all()
    assert np.abs(params["b"]).max() > 0.3  # another parameter, though its name ends alike


def test_keep_between_leaves_the_form_of_the_state_and_sees_nan():
    plain = adamw(optax.constant_schedule(0.1))
    kept = keep_between(plain, {"bias": (-1.0, 1.0)})
    assert jax.tree.structure(kept.init(PARAMS)) == jax.tree.structure(plain.init(PARAMS))
    bad = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), PARAMS)
    updates, _ = kept.update(bad, kept.init(PARAMS), PARAMS)
    assert np.isnan(updates["bias"]).all()


def test_bounds_in_the_wrong_order_are_refused():
    with pytest.raises(
        ValueError, match=r"bounds of scale: expected lowest <= highest, got 2 and 1"
    ):
        keep_between(optax.sgd(0.1), {"scale": (2, 1)})
