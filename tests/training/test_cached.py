"""The cached gradient equals the direct one, costs less memory, and is honest about batch norm."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcon import losses
from jaxcon.planning.memory import memory_of
from jaxcon.planning.programs import executed
from jaxcon.training.cached import cached_value_and_grad

IMAGES = jax.random.normal(jax.random.key(1), (12, 5))


class Tower(nn.Module):
    dropout: float = 0.0
    batch_norm: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(32)(x))
        if self.batch_norm:
            x = nn.BatchNorm(use_running_average=False, momentum=0.9)(x)
        x = nn.Dropout(self.dropout, deterministic=self.dropout == 0)(x)
        return nn.Dense(6)(x)


def encode(tower, params, chunk, key):
    rngs = {} if key is None else {"dropout": key}
    return tower.apply({"params": params["tower"]}, chunk, rngs=rngs)


def loss_fn(params, z, axis_name=None):
    return losses.npairs_loss(
        z, z[:, ::-1], temperature=jnp.exp(params["log_t"]), axis_name=axis_name
    )


def init(tower):
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(2)}
    variables = jax.jit(tower.init)(keys, IMAGES)
    return {"tower": variables["params"], "log_t": jnp.zeros(())}, variables.get("batch_stats")


def assert_close(actual, expected, tolerance=2e-6):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert np.linalg.norm(a - b) <= tolerance * max(1e-3, float(np.linalg.norm(b)))


@pytest.mark.parametrize(
    "chunk_size", [4, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in (1, 12))]
)
def test_value_and_gradient_are_those_of_the_whole_batch(chunk_size):
    tower = Tower()
    params, _ = init(tower)
    direct = jax.jit(jax.value_and_grad(lambda p: loss_fn(p, encode(tower, p, IMAGES, None))))
    cached = cached_value_and_grad(partial(encode, tower), loss_fn, chunk_size=chunk_size)
    assert_close(jax.jit(cached)(params, IMAGES), direct(params))


def test_dropout_draws_the_same_masks_in_both_passes():
    tower, key = Tower(dropout=0.5), jax.random.key(5)
    params, _ = init(tower)

    def direct(params):
        z = [
            encode(tower, params, IMAGES[4 * c :][:4], jax.random.fold_in(key, c)) for c in range(3)
        ]
        return loss_fn(params, jnp.concatenate(z))

    cached = jax.jit(cached_value_and_grad(partial(encode, tower), loss_fn, chunk_size=4))
    value = cached(params, IMAGES, key)
    assert_close(value, jax.jit(jax.value_and_grad(direct))(params))
    assert float(cached(params, IMAGES, jax.random.key(6))[0]) != float(value[0])


def test_two_towers_and_a_pytree_of_inputs():
    tower = Tower()
    params, _ = init(tower)
    batch = {"a": IMAGES, "b": IMAGES + 0.1}

    def both(params, chunk, key):
        return {name: encode(tower, params, x, key) for name, x in chunk.items()}

    def clip(params, z):
        return losses.clip_loss(z["a"], z["b"])

    expected = jax.jit(jax.value_and_grad(lambda p: clip(p, both(p, batch, None))))(params)
    cached = jax.jit(cached_value_and_grad(both, clip, chunk_size=3))
    assert_close(cached(params, batch), expected, 1e-5)


@pytest.mark.parametrize("check_vma", [True, pytest.param(False, marks=pytest.mark.exhaustive)])
def test_under_a_device_axis_with_global_negatives(check_vma):
    tower = Tower()
    params, _ = init(tower)
    cached = cached_value_and_grad(
        partial(encode, tower), partial(loss_fn, axis_name="batch"), chunk_size=3
    )

    def step(params, images):
        value, gradient = cached(params, images)
        return value, jax.lax.pmean(gradient, "batch")

    mesh = Mesh(np.array(jax.devices()[:4]), ("batch",))
    specs = {"in_specs": (P(), P("batch")), "out_specs": P()}
    images = jnp.concatenate([IMAGES, -IMAGES])
    sharded = jax.jit(jax.shard_map(step, mesh=mesh, check_vma=check_vma, **specs))
    direct = jax.jit(jax.value_and_grad(lambda p: loss_fn(p, encode(tower, p, images, None))))
    assert_close(sharded(params, images), direct(params), 1e-5)


def test_devices_sum_the_gradient_once_however_many_chunks_there_are():
    tower = Tower()
    params, _ = init(tower)
    mesh = Mesh(np.array(jax.devices()[:4]), ("batch",))

    def sums(chunk_size):
        cached = cached_value_and_grad(
            partial(encode, tower), partial(loss_fn, axis_name="batch"), chunk_size=chunk_size
        )
        specs = {"in_specs": (P(), P("batch")), "out_specs": P()}
        sharded = jax.jit(jax.shard_map(cached, mesh=mesh, **specs))
        text = sharded.lower(params, jnp.ones((24, 5))).compile().as_text()
        return sum(n for op, n in executed(text) if op.opcode.startswith("all-reduce"))

    assert sums(1) == sums(6) > 0


def test_memory_is_that_of_a_chunk():
    def wide(params, x, key):
        for _ in range(4):
            x = jnp.tanh(x @ params)
        return x[:, :8]

    def loss(params, z):
        return losses.npairs_loss(z, z)

    params, x = jnp.ones((128, 128)), jnp.ones((4096, 128))
    cached = cached_value_and_grad(wide, loss, chunk_size=256)

    def direct(params, x):
        return jax.value_and_grad(lambda p: loss(p, wide(p, x, None)))(params)

    sizes = [memory_of(jax.jit(f).lower(params, x).compile()).temporaries for f in (cached, direct)]
    matrix = 4 * 4096 * 4096  # what the dense loss keeps of the similarities, in both
    activations = 4 * 4 * 4096 * 128
    assert sizes[1] - sizes[0] > activations / 2
    assert sizes[0] < 4 * matrix


def test_batch_statistics_are_refused_unless_accepted():
    tower = Tower(batch_norm=True)
    params, stats = init(tower)

    def normalized(params, stats, chunk, key):
        variables = {"params": params["tower"], "batch_stats": stats}
        z, updates = tower.apply(variables, chunk, mutable=["batch_stats"])
        return z, updates["batch_stats"]

    refused = cached_value_and_grad(normalized, loss_fn, chunk_size=4)
    with pytest.raises(ValueError, match="per_chunk_statistics=True"):
        refused(params, IMAGES, batch_stats=stats)

    def direct(params):
        z, current = [], stats
        for c in range(3):
            part, current = normalized(params, current, IMAGES[4 * c :][:4], None)
            z.append(part)
        return loss_fn(params, jnp.concatenate(z)), current

    accepted = jax.jit(
        cached_value_and_grad(normalized, loss_fn, chunk_size=4, per_chunk_statistics=True)
    )
    value, gradient, updated = accepted(params, IMAGES, batch_stats=stats)
    gradient_fn = jax.jit(jax.value_and_grad(direct, has_aux=True))
    (expected, moved), expected_gradient = gradient_fn(params)
    assert_close((value, gradient, updated), (expected, expected_gradient, moved), 1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_shares_of_chunks_are_summed_in_float32(dtype):
    """A gradient of 4,096 ones, a chunk each: in bfloat16 their sum would stop at 256."""
    ones = jnp.ones((4096, 1), dtype)
    run = cached_value_and_grad(lambda p, x, k: p * x, lambda p, z: jnp.sum(z), chunk_size=1)
    _, gradient = jax.jit(run)(jnp.ones((), dtype), ones)
    assert gradient.dtype == dtype
    assert float(gradient) == 4096


def test_sums_in_float64_where_the_parameters_are():
    with jax.enable_x64(True):
        tiny = jnp.full((8, 1), 1e-12)
        run = cached_value_and_grad(
            lambda p, x, k: p * x, lambda p, z: jnp.sum(z) + p, chunk_size=1
        )
        _, gradient = run(jnp.ones(()), tiny)
        assert gradient.dtype == np.float64
        np.testing.assert_allclose(gradient - 1, 8e-12, rtol=1e-3)


@pytest.mark.parametrize("has_aux", [False, True])
def test_labels_where_and_ids_reach_the_loss_and_aux_comes_back(has_aux):
    params, _ = init(Tower())
    rows = {
        "labels": np.arange(12) // 3,
        "where": np.arange(12) % 5 != 0,
        "ids": np.arange(12) // 2,
    }

    def of_rows(params, z, *, labels, where, ids):
        loss = losses.supcon_loss(z, labels, where=where, ids=ids)
        return (loss, {"mean": jnp.mean(z)}) if has_aux else loss

    run = cached_value_and_grad(partial(encode, Tower()), of_rows, chunk_size=4, has_aux=has_aux)
    got = jax.jit(run)(params, IMAGES, rows=rows)
    expected = jax.jit(
        jax.value_and_grad(
            lambda p: of_rows(p, encode(Tower(), p, IMAGES, None), **rows), has_aux=has_aux
        )
    )(params)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    assert_close(got, expected)


def test_a_batch_on_explicit_axes_is_told_where_to_go():
    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Explicit,))
    batch = jax.device_put(IMAGES, NamedSharding(mesh, P("x")))
    run = cached_value_and_grad(lambda p, x, k: x * p, lambda p, z: jnp.sum(z), chunk_size=3)
    with pytest.raises(ValueError, match=r"Explicit mesh axes.*jax\.shard_map"):
        run(jnp.ones(()), batch)


@pytest.mark.parametrize("chunk_size", [0, 5, 24, 2.0])
def test_a_chunk_that_does_not_divide_the_batch(chunk_size):
    with pytest.raises(
        ValueError, match=f"divide the batch of 12 rows on this device, got {chunk_size}"
    ):
        cached_value_and_grad(lambda p, x, k: x, loss_fn, chunk_size=chunk_size)({}, IMAGES)
