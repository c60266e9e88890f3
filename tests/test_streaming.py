"""The tiled reductions against plain float64 formulas: values, gradients, memory, devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcon import collectives
from jaxcon.streaming import Channel, Rule, Side, nothing, reduce_pairs
from jaxcon.streaming.rules import in_force
from jaxcon.streaming.sides import in_blocks
from jaxcon.streaming.tiles import tile_count, tile_index


def scaled(tile, row, col):
    """Logits with auxiliaries on both sides, as Gaussian embeddings have; one set of rows has both."""
    return tile * row["row_aux"] - jnp.exp(-col["col_aux"]) * tile**2


def equal_ids(row_ids, col_ids):
    return row_ids == col_ids


CHANNELS = (
    Channel(1),
    Channel(0),
    Channel(1, scaled),
    Channel(0, scaled, equal_ids),
    Channel(1, pairs=equal_ids, log=False),
    Channel(0, scaled, log=False),
)


def problem(n, m, dim=5, seed=0):
    """Random rows, columns, ids, validity and auxiliaries; row 0 keeps no pair in any channel."""
    rng = np.random.default_rng(seed)
    row_valid, col_valid = rng.random(n) < 0.8, rng.random(m) < 0.8
    row_valid[0] = False
    x, y = rng.normal(size=(n, dim)), rng.normal(size=(m, dim))
    y[:2] = x[1:3] + 1e-3  # close pairs
    return {
        "x": jnp.asarray(x, jnp.float32),
        "y": jnp.asarray(y, jnp.float32),
        "row_ids": jnp.asarray(rng.integers(0, 4, n)),
        "col_ids": jnp.asarray(rng.integers(0, 4, m)),
        "row_valid": jnp.asarray(row_valid),
        "col_valid": jnp.asarray(col_valid),
        "row_aux": jnp.asarray(rng.normal(size=n), jnp.float32),
        "col_aux": jnp.asarray(rng.normal(size=m), jnp.float32),
    }


def one_set(n, seed=0):
    """A problem whose rows are its columns."""
    p = problem(n, n, seed=seed)
    return p | {"y": p["x"], "col_ids": p["row_ids"], "col_valid": p["row_valid"]}


def sides(p):
    """The problem's rows and columns; of one set, None for the columns."""
    one_set = p["y"] is p["x"]
    row_aux, col_aux = {"row_aux": p["row_aux"]}, {"col_aux": p["col_aux"]}
    rows = Side(p["x"], p["row_ids"], p["row_valid"], row_aux | col_aux if one_set else row_aux)
    return rows, None if one_set else Side(p["y"], p["col_ids"], p["col_valid"], col_aux)


def slow_reduce(p, distances=False):
    """The definition, pair by pair, in float64."""
    p = {k: np.asarray(v, np.float64) for k, v in p.items()}
    s = p["x"] @ p["y"].T
    if distances:
        s = np.sum((p["x"][:, None] - p["y"][None]) ** 2, axis=2)
    curved = s * p["row_aux"][:, None] - np.exp(-p["col_aux"]) * s**2
    valid = (p["row_valid"][:, None] * p["col_valid"]).astype(bool)
    same = p["row_ids"][:, None] == p["col_ids"]

    def lse(logits, keep, axis):
        lines = zip(np.moveaxis(logits, 1 - axis, 0), np.moveaxis(keep, 1 - axis, 0), strict=True)
        kept = (line[k] for line, k in lines)
        return np.array([np.logaddexp.reduce(v) if len(v) else nothing(np.float32) for v in kept])

    return (
        lse(s, valid & ~same, 1),
        lse(s, valid & ~same, 0),
        lse(curved, valid & ~same, 1),
        lse(curved, valid & same, 0),
        np.sum(s * (valid & same), 1),
        np.sum(curved * (valid & ~same), 0),
    )


def total(p, diff, channels=CHANNELS, **settings):
    """A scalar of all channels with different weights, as a function of the differentiable part."""
    p = p | diff
    p["y"] = diff.get("y", p["x"])
    outputs = reduce_pairs(*sides(p), channels, **settings)
    parts = (
        jnp.where(o > -1e30, o, 0) * jnp.sin(1.0 + k + jnp.arange(len(o)))
        for k, o in enumerate(outputs)
    )
    return sum(map(jnp.sum, parts))


def differentiable(p):
    keys = ("x", "row_aux", "col_aux") if p["y"] is p["x"] else ("x", "y", "row_aux", "col_aux")
    return {k: p[k] for k in keys}


@pytest.fixture(params=["two sets", "one set"])
def data(request):
    return problem(23, 37) if request.param == "two sets" else one_set(29)


@pytest.mark.parametrize("distances", [False, True])
@pytest.mark.parametrize("block_size", [None, 8, pytest.param(64, marks=pytest.mark.slow)])
def test_values_are_those_of_the_definition(data, block_size, distances):
    reduce = partial(reduce_pairs, channels=CHANNELS, block_size=block_size, distances=distances)
    outputs = jax.jit(lambda sides: reduce(*sides))(sides(data))
    for output, expected in zip(outputs, slow_reduce(data, distances), strict=True):
        np.testing.assert_allclose(output, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("settings", "distances"),
    [
        ({"block_size": 8, "bound": 40.0}, False),
        ({"block_size": 8}, True),
        pytest.param({"block_size": 64}, False, marks=pytest.mark.slow),
    ],
)
def test_gradients_are_those_of_plain_operations(data, settings, distances):
    diff = differentiable(data)

    def gradient(**settings):
        return jax.jit(jax.grad(lambda d: total(data, d, distances=distances, **settings)))(diff)

    plain, tiled = gradient(), gradient(**settings)
    for name, expected in plain.items():
        scale = np.linalg.norm(expected)
        assert np.linalg.norm(tiled[name] - expected) < 1e-5 * scale, name


# ``block_size=None`` takes tiles that are kept, whatever the size.
KEPT = Rule(whole_pairs=0, whole_pairs_of_one_set=0, block=8, lanes=1)


@pytest.mark.parametrize("n", [1, 512, 513, 1025, 3000])
def test_blocks_of_no_given_size_leave_little_to_fill_up(n):
    rule = Rule()
    block = min(rule.even_block(n), n)
    blocks = -(-n // block)
    assert block <= rule.block
    assert blocks == -(-n // rule.block)
    assert blocks * block - n < blocks * rule.lanes


@pytest.mark.parametrize("distances", [False, True])
def test_kept_tiles_give_the_same(data, distances):
    diff = differentiable(data)

    def value_and_grad(diff):
        return jax.jit(jax.value_and_grad(lambda d: total(data, d, distances=distances)))(diff)

    plain = value_and_grad(diff)
    with in_force(KEPT):
        kept = value_and_grad(diff)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), kept, plain)


def products(f, x, y, block):
    """How many products of blocks of rows a compiled program has, by its operations: XLA's own count.

    Of a loop it counts one round. What else there is to compute must be little beside a product.
    """
    cost = jax.jit(f).lower(x, y).compile().cost_analysis()
    return round(cost["flops"] / (2 * block * block * x.shape[1]))


@pytest.mark.parametrize(
    ("limits", "expected", "loops"),
    # A product forward and two backward; in tiles that are not kept one more, to find them again.
    [((2**14, 0), 3, False), ((2**14 - 1, 2**14), 3, True), ((2**14 - 1, 2**14 - 1), 4, True)],
    ids=["one matrix", "kept tiles", "tiles"],
)
@pytest.mark.parametrize("one_set", [False, True])
def test_the_form_follows_from_the_number_of_comparisons(one_set, limits, expected, loops):
    whole, kept = limits
    two, one = (0, whole) if one_set else (whole, 0)
    rule = Rule(two, whole_pairs_of_one_set=one, kept_pairs=kept, block=64, lanes=1)
    x, ids = jnp.ones((128, 64)), jnp.arange(128)

    def total(x, y):
        cols = None if one_set else Side(y, ids)
        return jnp.sum(reduce_pairs(Side(x, ids), cols, [Channel(1)])[0])

    step = jax.value_and_grad(total, argnums=(0, 1))
    with in_force(rule):
        assert products(step, x, x + 1, 64 if loops else 128) == expected
        assert ("while(" in jax.jit(step).lower(x, x + 1).compile().as_text()) == loops


@pytest.mark.parametrize("block_size", [None, 4])
def test_without_rows_there_is_nothing(block_size):
    x, ids = jnp.ones((3, 2)), jnp.arange(3)
    for rows, cols in ((0, 3), (3, 0), (0, 0)):
        lse, total = reduce_pairs(
            Side(x[:rows], ids[:rows]),
            Side(x[:cols] + 1, ids[:cols]),
            [Channel(1), Channel(0, log=False)],
            block_size=block_size,
        )
        np.testing.assert_array_equal(lse, np.full(rows, nothing(np.float32)))
        np.testing.assert_array_equal(total, np.zeros(cols))


def curvature(p, **settings):
    """A gradient of a function of the gradient, for a loss-like channel."""
    channels = (Channel(1),)

    def inner(x):
        g = jax.grad(lambda x: total(p, {"x": x}, channels, **settings))(x)
        return jnp.sum(g * jnp.cos(p["x"]))

    return jax.jit(jax.grad(inner))(p["x"])


def test_second_derivatives_reverse_over_reverse():
    p = one_set(21)
    plain = curvature(p)
    np.testing.assert_allclose(curvature(p, block_size=8), plain, rtol=1e-4, atol=1e-5)
    with in_force(KEPT):
        kept = curvature(p)
    np.testing.assert_allclose(kept, plain, rtol=1e-4, atol=1e-5)


def test_forward_mode_is_a_type_error_when_tiled_and_works_when_dense():
    p = one_set(9)
    f = partial(total, p, channels=(Channel(1),))
    jax.jvp(lambda x: f({"x": x}), (p["x"],), (p["x"],))
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda x: f({"x": x}, block_size=4), (p["x"],), (p["x"],))


@pytest.mark.parametrize("block_size", [0, -1, 2.5])
def test_a_block_size_that_is_no_positive_integer_is_refused(block_size):
    with pytest.raises(ValueError, match="block_size must be a positive integer"):
        reduce_pairs(*sides(problem(4, 4)), CHANNELS, block_size=block_size)


@pytest.mark.parametrize("block_size", [None, 4])
def test_rows_without_a_pair_are_finite_with_zero_gradient(block_size):
    x = jnp.ones((6, 3))
    ids = jnp.zeros(6, int)

    def f(x):
        (lse,) = reduce_pairs(Side(x, ids), None, [Channel(1)], block_size=block_size)
        return jnp.sum(jax.nn.softplus(lse)), lse

    (value, lse), grad = jax.value_and_grad(f, has_aux=True)(x)
    assert value == 0
    assert np.all(lse == nothing(jnp.float32))
    assert not grad.any()


@pytest.mark.parametrize("bound", [None, 10.0])
def test_nan_in_a_valid_row_stays_visible(bound):
    x = jax.random.normal(jax.random.key(0), (9, 3)).at[4].set(jnp.nan)
    ids = jnp.arange(9)
    call = partial(reduce_pairs, cols=None, channels=[Channel(1)], block_size=4, bound=bound)
    assert np.isnan(call(Side(x, ids))[0]).all()
    assert np.isfinite(call(Side(x, ids, valid=ids != 4))[0][0])


@pytest.mark.parametrize("temperature", [pytest.param(0.5, marks=pytest.mark.slow), 0.07, 0.01])
@pytest.mark.parametrize("block_size", [None, 16])
def test_float32_error_at_low_temperature(temperature, block_size):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(64, 16))
    z = np.concatenate([z, z + 0.01 * rng.normal(size=z.shape)])  # aligned pairs
    u = z / np.linalg.norm(z, axis=1, keepdims=True) / np.sqrt(temperature)
    ids = jnp.tile(jnp.arange(64), 2)
    s = np.where(ids[:, None] == ids, -np.inf, u @ u.T)
    lse = np.logaddexp.reduce(s, axis=1)
    weights = np.exp(s - lse[:, None])
    expected = (weights + weights.T) @ u

    def f(u):
        side, bound = Side(u, ids), 1 / temperature
        return reduce_pairs(side, None, [Channel(1)], block_size=block_size, bound=bound)[0]

    u32 = jnp.asarray(u, jnp.float32)
    np.testing.assert_allclose(f(u32), lse, rtol=3e-6, atol=3e-6)
    grad = jax.grad(lambda u: f(u).sum())(u32)
    assert np.linalg.norm(grad - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize(("block_size", "shape"), [(16, "16x16"), (None, "40x24")])
def test_bfloat16_is_multiplied_as_such_and_accumulated_in_float32(block_size, shape):
    p = problem(40, 24, dim=64)
    half = {k: p[k].astype(jnp.bfloat16) for k in ("x", "y")}
    rounded = {k: v.astype(jnp.float32) for k, v in half.items()}

    def call(x, y):
        rows, cols = Side(x, p["row_ids"], p["row_valid"]), Side(y, p["col_ids"], p["col_valid"])
        return reduce_pairs(rows, cols, (Channel(1), Channel(0)), block_size=block_size)

    for got, expected in zip(call(**half), call(**rounded), strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    text = jax.jit(call).lower(**half).as_text()
    dots = [line for line in text.splitlines() if "dot_general" in line]
    assert dots
    assert all("bf16" in line and f"-> tensor<{shape}xf32>" in line for line in dots)


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 7, 8])
def test_the_schedule_visits_each_tile_once(blocks):
    side, other = (in_blocks(Side(jnp.zeros((n, 1)), ids=()), 1) for n in (blocks, 3))
    for cols, expected in (
        (None, {(i, j) for i in range(blocks) for j in range(i, blocks)}),
        (other, {(i, j) for i in range(blocks) for j in range(3)}),
    ):
        visited = tile_index(np.arange(tile_count(side, cols)), side, cols)
        visited = [(int(i), int(j)) for i, j in zip(*visited, strict=True)]
        assert set(visited) == expected
        assert len(visited) == len(expected)


def lse_sum(x, y, block_size):
    ids = jnp.arange(len(x))
    channels = [Channel(1), Channel(0)]
    outputs = reduce_pairs(Side(x, ids), Side(y, ids), channels, block_size=block_size)
    return sum(map(jnp.sum, outputs))


def test_memory_is_linear_in_the_rows():
    def temporaries(n):
        x = jax.ShapeDtypeStruct((n, 16), jnp.float32)
        step = jax.jit(jax.grad(lambda x, y: lse_sum(x, y, 64), argnums=(0, 1)))
        return step.lower(x, x).compile().memory_analysis().temp_size_in_bytes

    small, large = temporaries(1024), temporaries(8192)
    assert large < 9 * small
    assert large < 8192 * 8192 * 4 / 40  # one matrix of all pairs


def test_one_set_of_rows_costs_one_exponential_per_unordered_pair():
    def sweep_text(same):
        x = jnp.ones((64, 8))
        ids = jnp.arange(64)

        def f(x, y):
            cols = None if same else Side(y, ids)
            return jnp.sum(
                reduce_pairs(Side(x, ids), cols, [Channel(1)], block_size=16, bound=1.0)[0]
            )

        return jax.jit(jax.grad(f)).lower(x, x + 1).compile().as_text()

    def per_tile(text):
        return sum(" exponential(" in line and "f32[16,16]" in line for line in text.splitlines())

    assert per_tile(sweep_text(True)) == per_tile(sweep_text(False)) == 2  # forward, backward


MAPPED = {
    "vmap": lambda f: jax.jit(jax.vmap(f, axis_name="batch")),
    "pmap": lambda f: jax.pmap(f, axis_name="batch", devices=jax.devices()[:4]),
}


def sharded(check_vma):
    mesh = Mesh(np.array(jax.devices()[:4]), ("batch",))

    def wrap(f):
        inner = jax.shard_map(
            lambda x, y: jax.tree.map(lambda a: a[None], f(x[0], y[0])),
            mesh=mesh,
            in_specs=P("batch"),
            out_specs=P("batch"),
            check_vma=check_vma,
        )
        return jax.jit(inner)

    return wrap


MAPPED["shard_map"] = sharded(True)
MAPPED["shard_map, check_vma=False"] = sharded(False)


@pytest.mark.parametrize("mode", MAPPED)
def test_inside_mapped_functions(mode):
    x, y = jax.random.normal(jax.random.key(0), (2, 4, 5, 3))

    def local(x, y):
        """Own rows against all devices' columns, and against columns that are the same everywhere."""
        everywhere = jnp.ones((7, 3))
        columns = jax.lax.all_gather(y, "batch", axis=0, tiled=True)
        ids = jax.lax.axis_index("batch") * 5 + jnp.arange(5)
        call = partial(reduce_pairs, Side(x, ids), channels=[Channel(1)], block_size=3)
        (a,), (b,) = (
            call(Side(columns, jnp.arange(20))),
            call(Side(everywhere, -jnp.ones(7, int))),
        )
        return jax.lax.pmean(jnp.mean(a + b), "batch")

    def reference(x, y):
        s = x.reshape(20, 3) @ y.reshape(20, 3).T
        rows = jax.nn.logsumexp(jnp.where(jnp.eye(20, dtype=bool), -jnp.inf, s), axis=1)
        return jnp.mean(rows + jax.nn.logsumexp(x.reshape(20, 3) @ jnp.ones((3, 7)), axis=1))

    value, grads = MAPPED[mode](jax.value_and_grad(local, argnums=(0, 1)))(x, y)
    expected = jax.value_and_grad(reference, argnums=(0, 1))(x, y)
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    # Where JAX keeps no account of varying values, the transpose of pmean is psum / P: 4 times 1 / 4.
    for got, want in zip(grads, expected[1], strict=True):
        factor = 1 if mode == "shard_map" else 4
        np.testing.assert_allclose(got, factor * want, rtol=1e-4, atol=1e-6)


def test_on_globally_sharded_arrays():
    mesh = Mesh(np.array(jax.devices()), ("batch",))
    x, y = jax.random.normal(jax.random.key(0), (2, 32, 4))
    f = jax.jit(jax.value_and_grad(partial(lse_sum, block_size=8), argnums=(0, 1)))
    across = jax.device_put((x, y), NamedSharding(mesh, P("batch")))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), f(*across), f(x, y))


def ring_loss(exchange, block_size, same, x, y, axis="batch"):
    """Local part of a loss with rows and columns of all devices, by gather or by ring."""
    n = len(x)
    ids = jax.lax.axis_index(axis) * n + jnp.arange(n)
    aux = {"row_aux": jnp.sum(x, axis=1), "col_aux": jnp.sum(y, axis=1)}
    channels = [Channel(1), Channel(1, scaled)] + [Channel(0)] * (not same)
    rows = Side(x, ids, aux=aux)
    cols = None if same else Side(y, ids, aux=aux)
    if exchange == "ring":
        outputs = reduce_pairs(rows, cols, channels, ring=axis, block_size=block_size)
    else:
        cols = collectives.gather(rows if same else cols, axis)
        outputs = list(reduce_pairs(rows, cols, channels))
        outputs[2:] = [
            collectives.own_rows(collectives.logsumexp(o, axis), axis) for o in outputs[2:]
        ]
    return collectives.mean(sum(jnp.mean(o * jnp.cos(k + o)) for k, o in enumerate(outputs)), axis)


MORE = [pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 4, 8)]


@pytest.mark.parametrize("devices", [5, *MORE])
@pytest.mark.parametrize("same", [False, True])
def test_ring_is_exact(devices, same):
    x, y = jax.random.normal(jax.random.key(0), (2, devices, 3, 4))

    def run(exchange):
        f = partial(ring_loss, exchange, 2, same)
        return jax.jit(jax.vmap(jax.value_and_grad(f, argnums=(0, 1)), axis_name="batch"))(x, y)

    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-6), run("ring"), run("gather")
    )


@pytest.mark.parametrize(
    "mode",
    [
        "shard_map",
        pytest.param("shard_map, check_vma=False", marks=pytest.mark.slow),
        pytest.param("pmap", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("same", [False, True])
def test_ring_inside_mapped_functions(mode, same):
    x, y = jax.random.normal(jax.random.key(0), (2, 4, 3, 4))

    def run(exchange):
        f = partial(ring_loss, exchange, 2, same)
        return MAPPED[mode](jax.value_and_grad(f, argnums=(0, 1)))(x, y)

    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-6), run("ring"), run("gather")
    )


def moved_rows(same, devices, n=64, dim=32):
    """Rows of dim floats that a device sends in value and gradient, counted while tracing."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("batch",))

    def f(x, y):
        ids = jax.lax.axis_index("batch") * n + jnp.arange(n)
        cols = None if same else Side(y, ids)
        (lse,) = reduce_pairs(Side(x, ids), cols, [Channel(1)], ring="batch")
        return jax.lax.pmean(jnp.mean(lse), "batch")

    step = jax.shard_map(
        jax.value_and_grad(f, argnums=(0, 1)),
        mesh=mesh,
        in_specs=P("batch"),
        out_specs=(P(), P("batch")),
    )
    x = jnp.ones((devices * n, dim))
    jaxpr = jax.make_jaxpr(step)(x, x + 1)

    def count(jaxpr):
        found = 0
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "ppermute":
                found += sum(v.aval.size for v in eqn.invars if v.aval.size >= n * dim)
            times = eqn.params["length"] if eqn.primitive.name == "scan" else 1
            found += times * sum(map(count, jaxprs_in_params(eqn.params)))
        return found

    compiled = jax.jit(step).lower(x, x).compile().as_text()
    assert "all-gather" not in compiled
    assert f"f32[{devices * n},{devices * n}]" not in compiled
    return count(jaxpr.jaxpr) / (n * dim)


@pytest.mark.parametrize("devices", [5, 8])
def test_ring_moves_as_many_rows_as_derived(devices):
    # All round: P - 1 hops of the columns forward; backward P - 1 again, and P of their gradient.
    assert moved_rows(same=False, devices=devices) == 3 * (devices - 1) + 1
    # Half round: P // 2 hops forward and backward, and the gradient there and straight home.
    stops = (devices - 1) // 2
    assert moved_rows(same=True, devices=devices) == 2 * (devices // 2) + stops + 1
