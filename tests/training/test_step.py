"""One step, one meaning: on any number of devices, under shard_map, pmap and plain jit."""

import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from jaxcon import collectives
from jaxcon.planning.traffic import traffic
from jaxcon.training.devices import batch_sharding, make_mesh, replicate
from jaxcon.training.state import create_state
from jaxcon.training.step import make_train_step, shard_step
from tests.training.toy import BATCH, DATA, make_batch, make_loss, make_state

KEY = jax.random.key(7)


def train(devices: int, steps: int = 20) -> tuple[list[float], dict]:
    mesh = make_mesh(jax.devices()[:devices])
    step = shard_step(make_train_step(make_loss("batch")), mesh)
    state, key, losses = replicate(make_state(), mesh), KEY, []
    for number in range(steps):
        state, metrics = step(state, jax.device_put(make_batch(number), batch_sharding(mesh)), key)
        losses.append(float(metrics["loss"]))
    return losses, jax.device_get(state.variables())


@pytest.fixture(scope="module")
def single():
    return train(1)


@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 4, 8])
def test_losses_do_not_depend_on_the_number_of_devices(devices, single):
    losses, variables = train(devices)
    assert losses[-1] < 0.8 * losses[0]
    np.testing.assert_allclose(losses, single[0], rtol=1e-3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), variables, single[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "counts", [(1, 8), pytest.param((1, 2, 4, 8), marks=pytest.mark.slow)], ids=str
)
def test_losses_agree_in_float64(counts):
    code = f"""
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_enable_x64", True)
import json
from tests.training import toy
from tests.training.test_step import train
toy.DATA = toy.DATA.astype("float64")
print(json.dumps([train(n)[0] for n in {counts}]))
"""
    environ = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=False
    )
    assert done.returncode == 0, done.stderr
    single, *others = json.loads(done.stdout)
    for losses in others:
        np.testing.assert_allclose(losses, single, rtol=1e-8)


@pytest.mark.parametrize("check_vma", [True, False])
def test_the_mapped_gradient_is_the_one_of_a_single_device(check_vma):
    """With plain SGD an update is the gradient: off by a factor P, it would show here."""
    optimizer, batch = optax.sgd(1.0), make_batch(0)
    alone, _ = jax.jit(make_train_step(make_loss(None), axis_name=None))(
        make_state(optimizer), batch, KEY
    )
    mesh = make_mesh(jax.devices())
    settings = {"mesh": mesh, "in_specs": (P(), P("batch"), P()), "out_specs": P()}
    step = jax.shard_map(make_train_step(make_loss("batch")), check_vma=check_vma, **settings)
    sharded, _ = jax.jit(step)(
        replicate(make_state(optimizer), mesh), jax.device_put(batch, batch_sharding(mesh)), KEY
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        jax.device_get(alone.variables()),
        jax.device_get(sharded.variables()),
    )


def test_devices_sum_gradients_once():
    def loss_fn(params, carried, batch, key):
        del key
        return collectives.mean(jnp.mean((batch["x"] @ params["w"]) ** 2), "batch"), (carried, {})

    mesh, rows = make_mesh(jax.devices()[:4]), {"x": jnp.ones((8, 64))}
    state = create_state({"params": {"w": jnp.ones((64, 128))}}, optax.sgd(0.1), apply_fn=None)
    step = shard_step(make_train_step(loss_fn), mesh)
    text = step.lower(replicate(state, mesh), rows, KEY).compile().as_text()
    found = traffic(text, 4, at_least=4000)
    assert found["all-reduce"].times == 1
    assert found["all-reduce"].sent == pytest.approx(4 * 2 * 64 * 128 * 3 / 4, rel=1e-3)


def test_pmap_runs_the_same_step():
    devices = jax.devices()[:4]
    mesh = make_mesh(devices)
    step = make_train_step(make_loss("batch"))
    sharded = shard_step(step, mesh)
    mapped = jax.pmap(step, axis_name="batch", in_axes=(0, 0, None), devices=devices)
    left = replicate(make_state(), mesh)
    right = jax.tree.map(lambda x: jnp.stack([x] * 4), make_state())
    for number in range(3):
        batch = make_batch(number)
        left, left_metrics = sharded(left, jax.device_put(batch, batch_sharding(mesh)), KEY)
        stacked = jax.tree.map(lambda x: x.reshape(4, BATCH // 4, *x.shape[1:]), batch)
        right, right_metrics = mapped(right, stacked, KEY)
        np.testing.assert_allclose(right_metrics["loss"], float(left_metrics["loss"]), rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b[0], rtol=1e-4, atol=1e-5),
        jax.device_get(left.variables()),
        jax.device_get(right.variables()),
    )


def test_an_update_that_is_not_finite_changes_nothing_but_the_counts():
    step = jax.jit(make_train_step(make_loss(None), axis_name=None, ema_decay=0.9))
    state, _ = step(make_state(average=True), make_batch(0), KEY)
    bad = make_batch(1)
    bad["x"] = np.where(np.arange(BATCH)[:, None] == 3, np.nan, bad["x"])
    after, metrics = step(state, bad, KEY)
    assert np.isnan(metrics["loss"])
    assert (int(after.step), int(after.skipped), int(metrics["skipped"])) == (2, 1, 1)
    kept = after.replace(step=state.step, skipped=state.skipped)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(kept), jax.device_get(state))
    recovered, metrics = step(after, make_batch(2), KEY)
    assert np.isfinite(metrics["loss"])
    assert int(recovered.skipped) == 1


def test_a_gradient_that_is_not_finite_is_refused_too():
    def loss_fn(params, carried, batch, key):
        # The square root of 0 is finite, its slope is not.
        loss = jnp.sqrt(jnp.sum((params["w"] * batch["x"]) ** 2))
        return loss, (carried, {})

    state = make_state().replace(params={"w": jnp.zeros(3)}, carried={})
    state = state.replace(opt_state=state.tx.init(state.params))
    step = make_train_step(loss_fn, axis_name=None)
    state, metrics = step(state, {"x": jnp.ones((2, 3))}, KEY)
    assert float(metrics["loss"]) == 0.0
    assert int(state.skipped) == 1
    assert state.params["w"].tolist() == [0.0, 0.0, 0.0]


def test_the_moving_average_follows_its_formula():
    step = jax.jit(make_train_step(make_loss(None), axis_name=None, ema_decay=0.75))
    state = make_state(average=True)
    expected = jax.device_get(state.variables())
    for number in range(3):
        state, _ = step(state, make_batch(number), KEY)
        expected = jax.tree.map(
            lambda e, v: 0.75 * e + 0.25 * v, expected, jax.device_get(state.variables())
        )
    averaged = jax.device_get(state.variables(average=True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), averaged, expected)


def test_ragged_batches_and_vector_losses_are_refused():
    step = make_train_step(make_loss(None), axis_name=None)
    with pytest.raises(AssertionError):
        step(make_state(), {"x": DATA[:4], "index": np.arange(3)}, KEY)
    vector = make_train_step(lambda p, s, b, k: (b["x"], (s, {})), axis_name=None)
    with pytest.raises(TypeError, match="scalar"):
        vector(make_state(), {"x": jnp.ones(3)}, KEY)


def test_the_state_is_donated():
    mesh = make_mesh(jax.devices()[:1])
    state = replicate(make_state(), mesh)
    leaf = state.params["Dense_0"]["kernel"]
    shard_step(make_train_step(make_loss("batch")), mesh)(
        state, jax.device_put(make_batch(0), batch_sharding(mesh)), KEY
    )
    assert leaf.is_deleted()


def test_every_collection_of_variables_is_carried():
    """A queue beside the statistics: the loss gets both, and the state holds what it returned."""
    start = {"batch_stats": {"mean": jnp.zeros(3)}, "queue": {"rows": jnp.zeros((2, 3))}}

    def loss_fn(params, carried, batch, key):
        rows = jnp.roll(carried["queue"]["rows"], 1, axis=0).at[0].set(batch["x"][0])
        loss = jnp.sum(params["w"] * batch["x"])
        return loss, ({**carried, "queue": {"rows": rows}}, {})

    variables = {"params": {"w": jnp.ones(3)}, **start}
    state = create_state(variables, optax.sgd(0.1), apply_fn=lambda v: v, average=True)
    step = jax.jit(make_train_step(loss_fn, ema_decay=0.5, axis_name=None))
    state, _ = step(state, {"x": jnp.full((1, 3), 5.0)}, jax.random.key(0))
    np.testing.assert_array_equal(state.carried["queue"]["rows"], [[5, 5, 5], [0, 0, 0]])
    averaged = state.variables(average=True)
    assert averaged.keys() == variables.keys()
    np.testing.assert_array_equal(averaged["queue"]["rows"], state.carried["queue"]["rows"])
    np.testing.assert_allclose(averaged["params"]["w"], (1 + state.params["w"]) / 2)


@pytest.mark.parametrize("returned", [{}, {"batch_stats": {}, "queue": {}}])
def test_a_collection_that_comes_from_nowhere_or_is_lost_is_refused(returned):
    def loss_fn(params, carried, batch, key):
        return jnp.sum(params["w"]), (returned, {})

    variables = {"params": {"w": jnp.ones(3)}, "batch_stats": {}}
    state = create_state(variables, optax.sgd(0.1), apply_fn=lambda v: v)
    named = f"that the state carries (batch_stats), got {', '.join(returned) or 'none'};"
    with pytest.raises(ValueError, match=re.escape(named)):
        make_train_step(loss_fn, axis_name=None)(state, {"x": jnp.ones((1, 3))}, jax.random.key(0))


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"batch_stats": {}}, "expected params among them, got batch_stats"),
        ({"params": {}, "ema": {}}, "expected another name for the collection ema"),
    ],
)
def test_variables_that_are_no_state_are_refused(variables, named):
    with pytest.raises(ValueError, match=f"^variables: {named}"):
        create_state(variables, optax.sgd(0.1), apply_fn=lambda v: v)
