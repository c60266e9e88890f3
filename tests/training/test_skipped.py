"""Refused updates: what is refused, what stays as it was, and what goes on."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxcon.training.optimizers import adamw, lars, sgd, warmup_cosine
from jaxcon.training.state import create_state
from jaxcon.training.step import make_train_step

KEY = jax.random.key(0)
STEPS = 40
BAD = np.arange(STEPS) % 4 > 1  # half of the steps, the last among them
SCHEDULE = partial(warmup_cosine, 0.3, warmup_steps=5, total_steps=STEPS)
START = np.float32([[1.0, -2.0], [0.5, 3.0]])
GRADIENTS = np.random.default_rng(0).normal(size=(STEPS, 2, 2)).astype(np.float32)


def rates():
    """The schedule as a loop: a rise that starts above 0, then half a cosine."""
    first = 0.3 / 6
    rise = [first + (0.3 - first) * step / 5 for step in range(5)]
    return rise + [0.15 * (1 + np.cos(np.pi * (step - 5) / 35)) for step in range(5, STEPS)]


def linear(params, carried, batch, key):
    """Its gradient is the batch's."""
    del key
    loss = jnp.sum(params["kernel"] * batch["x"]) + jnp.where(batch["bad"][0], jnp.nan, 0.0)
    return loss, (carried, {})


def train(optimizer):
    """The kernel after each step, half of which are refused; compiled as one program."""
    state = create_state({"params": {"kernel": START}}, optimizer, apply_fn=lambda v, x: x)
    step = make_train_step(linear, axis_name=None)

    def one(state, batch):
        state, metrics = step(state, batch, KEY)
        return state, (state.params["kernel"], metrics["skipped"])

    batches = {"x": GRADIENTS, "bad": np.repeat(BAD[:, None], 2, 1)}
    state, (kernels, skipped) = jax.jit(partial(lax.scan, one))(state, batches)
    assert int(state.step) == STEPS
    np.testing.assert_array_equal(skipped, np.cumsum(BAD))
    return np.asarray(kernels)


def expected(update):
    """A loop: the rate goes by the step, the optimizer's sums by the updates that were taken."""
    kernel, kernels = np.float64(START), []
    for rate, gradient, bad in zip(rates(), np.float64(GRADIENTS), BAD, strict=True):
        kernel = kernel if bad else kernel + update(rate, gradient, kernel)
        kernels.append(kernel)
    return np.array(kernels)


def momentum_of():
    sums = {"m": 0.0}

    def nesterov(rate, gradient, kernel):
        gradient = gradient + 0.1 * kernel
        sums["m"] = gradient + 0.9 * sums["m"]
        return -rate * (gradient + 0.9 * sums["m"])

    return nesterov


def adam():
    sums = {"n": 0, "m": 0.0, "v": 0.0}

    def update(rate, gradient, kernel):
        sums["n"] += 1
        sums["m"] = 0.9 * sums["m"] + 0.1 * gradient
        sums["v"] = 0.999 * sums["v"] + 0.001 * gradient**2
        m, v = sums["m"] / (1 - 0.9 ** sums["n"]), sums["v"] / (1 - 0.999 ** sums["n"])
        return -rate * (m / (np.sqrt(v) + 1e-8) + 0.1 * kernel)

    return update


def trust_ratio():
    sums = {"m": 0.0}

    def update(rate, gradient, kernel):
        gradient = gradient + 0.1 * kernel
        gradient = 0.001 * np.linalg.norm(kernel) / np.linalg.norm(gradient) * gradient
        sums["m"] = -rate * gradient + 0.9 * sums["m"]
        return sums["m"]

    return update


@pytest.mark.parametrize(
    ("build", "loop"), [(sgd, momentum_of), (adamw, adam), (lars, trust_ratio)]
)
def test_schedules_follow_the_step_where_updates_are_refused(build, loop):
    kernels = train(build(SCHEDULE(), weight_decay=0.1, clip_norm=100.0))
    np.testing.assert_allclose(kernels, expected(loop()), rtol=1e-4, atol=1e-5)


def plain(rate, gradient, kernel):
    del kernel
    return -rate * gradient


INJECTED = {
    "hyperparameters": lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=SCHEDULE()),
    "masked": lambda: optax.masked(optax.sgd(SCHEDULE()), {"kernel": True}),
    "multi_transform": lambda: optax.multi_transform(
        {"all": optax.sgd(SCHEDULE())}, {"kernel": "all"}
    ),
}


@pytest.mark.parametrize("name", INJECTED)
def test_schedules_of_other_optimizers_follow_the_step_too(name):
    np.testing.assert_allclose(train(INJECTED[name]()), expected(plain), rtol=1e-4, atol=1e-5)


def one_step(loss_fn, variables, optimizer=None, **batch):
    state = create_state(
        variables, optimizer or optax.sgd(1.0), apply_fn=lambda v, x: x, average=True
    )
    before = jax.device_get(state)
    step = jax.jit(make_train_step(loss_fn, axis_name=None, ema_decay=0.5))
    return before, jax.device_get(step(state, {"x": np.ones((2, 3), np.float32)} | batch, KEY))


def assert_refused(before, after, metrics):
    assert np.isfinite(metrics["loss"])
    assert (int(after.step), int(after.skipped), int(metrics["skipped"])) == (1, 1, 1)
    kept = after.replace(step=before.step, skipped=before.skipped)
    jax.tree.map(np.testing.assert_array_equal, kept, before)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_statistics_that_are_not_finite_are_refused(bad):
    """One of many, at a finite loss and gradient."""

    def loss_fn(params, carried, batch, key):
        mean = carried["batch_stats"]["mean"].at[1].set(bad)
        return jnp.sum(params["w"] * batch["x"]), (
            {"batch_stats": {"mean": mean, "var": carried["batch_stats"]["var"]}},
            {},
        )

    statistics = {"mean": jnp.zeros(3), "var": jnp.ones(3)}
    variables = {"params": {"w": jnp.ones(3)}, "batch_stats": statistics}
    before, (after, metrics) = one_step(loss_fn, variables)
    assert np.isfinite(metrics["gradient_norm"])
    assert_refused(before, after, metrics)


def test_parameters_that_are_not_finite_are_refused():
    """A finite gradient and a rate that leads out of float32."""

    def loss_fn(params, carried, batch, key):
        return 1e10 * jnp.sum(params["w"] * batch["x"]), (carried, {})

    variables = {"params": {"w": jnp.ones(3), "other": jnp.ones(2)}}
    before, (after, metrics) = one_step(loss_fn, variables, optax.sgd(1e30))
    assert np.isfinite(metrics["gradient_norm"])
    assert_refused(before, after, metrics)


def test_counts_and_keys_among_the_statistics_are_no_matter():
    def loss_fn(params, carried, batch, key):
        return jnp.sum(params["w"] * batch["x"]), (carried, {})

    statistics = {"seen": jnp.int32(3), "key": jax.random.key(0)}
    variables = {"params": {"w": jnp.ones(3)}, "batch_stats": statistics}
    state = create_state(variables, optax.sgd(1.0), apply_fn=lambda v, x: x)
    step = jax.jit(make_train_step(loss_fn, axis_name=None))
    state, metrics = step(state, {"x": jnp.ones((2, 3))}, KEY)
    assert int(metrics["skipped"]) == 0
    np.testing.assert_array_equal(state.params["w"], np.full(3, 1.0 - 2.0))
