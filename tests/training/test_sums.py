"""What is summed over steps, leaves or devices: asked for as a whole, by its formula, in any dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from jaxcon.training.devices import make_mesh
from jaxcon.training.optimizers import adamw
from jaxcon.training.state import create_state
from jaxcon.training.step import make_train_step
from tests.training.toy import BUILDS, make_batch, make_loss, make_state

KEY = jax.random.key(7)
LOW = [jnp.bfloat16, jnp.float16]


def linear_loss(params, carried, batch, key):
    """Its gradient is the batch, whatever the parameters."""
    del key
    return sum(jnp.sum(batch["x"] * leaf) for leaf in jax.tree.leaves(params)), (carried, {})


def run(state, step, batch, steps):
    """The state after so many steps, compiled as one program."""
    many = jax.jit(lambda s: lax.scan(lambda s, _: (step(s, batch, KEY)[0], None), s, length=steps))
    return many(state)[0]


def low(dtype, optimizer=None, **settings):
    variables = {"params": {"w": jnp.zeros((2, 3), dtype)}}
    return create_state(variables, optimizer or optax.sgd(0.0), apply_fn=lambda v, x: x, **settings)


def one_line(error):
    return "\n" not in str(error.value) and len(str(error.value)) < 200


@pytest.mark.parametrize("transform", [lambda step: step, jax.jit], ids=["plain", "jit"])
def test_half_of_the_setting_of_an_average_is_refused(transform):
    """The state keeps one and the step adds to none, or the other way round."""
    batch = make_batch(0)
    step = transform(make_train_step(make_loss(None), axis_name=None))
    with pytest.raises(ValueError, match=r"ema_decay: expected a number.*untrained start") as error:
        step(make_state(average=True), batch, KEY)
    assert one_line(error)
    step = transform(make_train_step(make_loss(None), axis_name=None, ema_decay=0.9))
    with pytest.raises(ValueError, match=r"ema_decay: expected None.*got 0.9; ") as error:
        step(make_state(average=False), batch, KEY)
    assert one_line(error)


@pytest.mark.parametrize("decay", [1.5, 1.0, 1, -0.5, np.nan, np.inf, "0.9", [0.9], True])
def test_a_decay_out_of_its_range_is_refused(decay):
    with pytest.raises(
        ValueError, match=r"ema_decay: expected a .*at least 0 and below 1"
    ) as error:
        make_train_step(make_loss(None), axis_name=None, ema_decay=decay)
    assert one_line(error)


@pytest.mark.parametrize("decay", [0, 0.999, np.float32(0.9), jnp.float32(0.9)])
def test_decays_within_it_are_taken(decay):
    make_train_step(make_loss(None), axis_name=None, ema_decay=decay)


@pytest.mark.parametrize("dtype", [*LOW, jnp.float32])
def test_an_average_moves_in_any_dtype(dtype):
    """From 0 to a parameter of 1 in steps of a thousandth: 1 - 0.999^n, past 0.5."""
    state = low(dtype, average=True)
    state = state.replace(params={"w": jnp.ones((2, 3), dtype)})
    step = make_train_step(linear_loss, axis_name=None, ema_decay=0.999)
    state = run(state, step, {"x": jnp.ones(3, dtype)}, 1500)
    average = state.variables(average=True)["params"]["w"]
    assert average.dtype == jnp.float32
    assert state.params["w"].dtype == dtype
    np.testing.assert_allclose(average, np.full((2, 3), 1 - 0.999**1500), rtol=1e-4)


def test_an_average_takes_counts_as_they_are():
    def loss_fn(params, carried, batch, key):
        loss, _ = linear_loss(params, carried, batch, key)
        seen, key = carried["batch_stats"]["seen"], carried["batch_stats"]["key"]
        return loss, ({"batch_stats": {"seen": seen + 1, "key": key}}, {})

    start = {"seen": jnp.int32(0), "key": jax.random.key(1)}
    variables = {"params": {"w": jnp.zeros(3)}, "batch_stats": start}
    state = create_state(variables, optax.sgd(1.0), apply_fn=lambda v, x: x, average=True)
    step = make_train_step(loss_fn, axis_name=None, ema_decay=0.5)
    state = run(state, step, {"x": jnp.ones(3)}, 3)
    average = state.variables(average=True)
    assert int(average["batch_stats"]["seen"]) == 3
    # w is -1, -2, -3 after the steps.
    expected = 0.5 * (0.5 * (0.5 * 0 + 0.5 * -1) + 0.5 * -2) + 0.5 * -3
    np.testing.assert_allclose(average["params"]["w"], np.full(3, expected), rtol=1e-6)


def test_statistics_are_kept_in_float32():
    """Of a model that was cast to bfloat16 as a whole: they are those of one that was not."""
    whole = make_state()
    variables = whole.variables()
    stats = jax.tree.map(lambda x: x.astype(jnp.bfloat16), variables["batch_stats"])
    cast = create_state(
        {**variables, "batch_stats": stats}, whole.tx, apply_fn=whole.apply_fn, average=True
    )
    kept = cast.carried, cast.ema
    assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype(jnp.float32)}
    step = jax.jit(make_train_step(make_loss(None), axis_name=None))
    cast, whole = (step(state, make_batch(0), KEY)[0] for state in (cast.replace(ema=None), whole))
    # They begin at 0 and 1, which bfloat16 holds.
    jax.tree.map(np.testing.assert_array_equal, cast.carried, whole.carried)


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("build", BUILDS)
def test_optimizers_sum_in_float32(build, dtype):
    params = {"kernel": jnp.ones((2, 3), dtype), "bias": jnp.ones(2, dtype)}
    optimizer = build(optax.constant_schedule(0.1), clip_norm=1.0)
    state = optimizer.init(params)
    wide = optimizer.init(jax.tree.map(jnp.float32, params))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(
        lambda x: (x.shape, x.dtype), wide
    )
    _, after = optimizer.update(params, state, params)
    assert jax.tree.map(jnp.result_type, after) == jax.tree.map(jnp.result_type, state)


def test_adams_average_of_squares_moves_in_bfloat16():
    """With a gradient of 1 it is 1 - 0.999^n; in bfloat16 it would stay at 0.5 or below."""
    optimizer = adamw(optax.constant_schedule(0.0))
    step = make_train_step(linear_loss, axis_name=None)
    state = run(low(jnp.bfloat16, optimizer), step, {"x": jnp.ones(3, jnp.bfloat16)}, 1500)
    adam = next(part for part in state.opt_state if isinstance(part, optax.ScaleByAdamState))
    np.testing.assert_allclose(adam.nu["w"], np.full((2, 3), 1 - 0.999**1500), rtol=1e-4)


def test_the_norm_of_many_leaves_is_summed_in_float32():
    """256 gradients of 1 and then 20 more; in bfloat16 a sum of ones ends at 256."""
    shapes = {"a": (256,), **{f"b{i}": () for i in range(20)}}
    variables = {"params": {name: jnp.zeros(s, jnp.bfloat16) for name, s in shapes.items()}}
    state = create_state(variables, optax.sgd(0.0), apply_fn=lambda v, x: x)
    step = jax.jit(make_train_step(linear_loss, axis_name=None))
    _, metrics = step(state, {"x": jnp.ones(1, jnp.bfloat16)}, KEY)
    np.testing.assert_allclose(metrics["gradient_norm"], np.sqrt(256 + 20), rtol=1e-6)


def test_gradients_of_devices_are_averaged_in_float32():
    """In float16, which ends at 65504, the sum of eight 60000 would be infinite, their mean is not."""
    mesh = make_mesh(jax.devices())
    rows = np.float16([60000.0] * 8)

    def loss_fn(params, carried, batch, key):
        del key
        own = jnp.sum(batch["x"] * params["w"]).astype(jnp.float32)
        return lax.pmean(own, "batch"), (carried, {})

    state = create_state(
        {"params": {"w": jnp.zeros((), jnp.float16)}}, optax.sgd(1e-4), apply_fn=lambda v, x: x
    )
    step = make_train_step(loss_fn)
    specs = (P(), P("batch"), P())
    mapped = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=P()))
    state, metrics = mapped(state, {"x": rows}, KEY)
    assert int(metrics["skipped"]) == 0
    np.testing.assert_allclose(state.params["w"], -6.0, rtol=1e-2)
