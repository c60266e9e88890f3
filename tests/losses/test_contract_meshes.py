"""A plain call on arrays with Explicit mesh axes is parallel, and equals one device's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcon import collectives, losses
from jaxcon.losses import queue
from jaxcon.losses._meshes import over_mesh
from jaxcon.planning.programs import executed
from tests.losses.calls import anchors, arguments, compiled_anchors, gap, precision
from tests.losses.cases import CASES, FAMILIES, each
from tests.losses.devices import alone, prepared, step
from tests.marks import slow_unless

Z1, Z2 = np.random.default_rng(0).normal(size=(2, 16, 6)).astype(np.float32)
Z2 += Z1


def mesh_of(**sizes):
    """A mesh of Explicit axes of these sizes."""
    explicit = (AxisType.Explicit,) * len(sizes)
    devices = jax.devices()[: np.prod(list(sizes.values()))]
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=explicit, devices=devices)


def put(mesh, tree, *spec):
    return jax.device_put(tree, NamedSharding(mesh, P(*spec)))


def value_and_grads(loss, z1, z2, **keywords):
    return jax.value_and_grad(functools.partial(loss, **keywords), argnums=(0, 1))(z1, z2)


def check(got, expected, tolerance=1e-6):
    assert gap(jax.device_get(got), jax.device_get(expected)) < tolerance


@each()
def test_every_loss_maps_itself_over_the_axis_of_its_rows(case):
    inputs, rows, mesh = case.inputs(seed=21), case.rows(seed=21), mesh_of(batch=4)
    with precision(np.float64):
        weight, *batch = prepared(case, inputs, rows, np.float64)
        args = put(mesh, weight), *put(mesh, batch, "batch")
        traced = jax.jit(step(case, None)).trace(*args)
        assert "shard_map[" in str(traced.jaxpr)
        got = traced.lower().compile()(*args)
    check(got, alone(case, inputs, rows, np.float64), 1e-12)
    assert got.value.sharding.is_fully_replicated
    assert all(g.sharding.spec[0] == "batch" for g in got.embeddings.values())


@pytest.mark.parametrize(
    "case",
    slow_unless(lambda case: case.id in FAMILIES, [c for c in CASES if c.plain and c.has_anchors]),
    ids=lambda case: case.id,
)
def test_values_per_anchor_have_the_order_of_one_device(case):
    inputs, rows = case.inputs(seed=21), case.rows(seed=21)
    with precision(np.float64):
        *batch, temperature = arguments(case, inputs, rows, np.float64, None)
        got = compiled_anchors(case)(*put(mesh_of(batch=4), batch, "batch"), temperature)
    check(got, anchors(case, inputs, rows), 1e-12)
    assert got.sharding.spec[0] == "batch"


def test_learned_settings_have_the_gradient_of_one_device():
    def total(settings, z1, z2):
        temperature, bias, weight = settings
        correlated = losses.barlow_twins_loss(z1, z2, off_diagonal_weight=weight)
        return losses.siglip_loss(z1, z2, temperature=temperature, bias=bias) + correlated

    with precision(np.float64):
        step = jax.jit(jax.grad(total))
        settings, z1, z2 = jax.tree.map(np.float64, ([0.3, -1.0, 0.1], Z1, Z2))
        got = step(settings, *put(mesh_of(batch=4), (z1, z2), "batch"))
        check(got, step(settings, z1, z2), 1e-12)
    assert all(g.sharding.is_fully_replicated for g in got)


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("clip_loss", {"all-gather", "reduce-scatter", "all-reduce"}),
        ("ntxent_loss", {"all-gather", "reduce-scatter", "all-reduce"}),
        ("supcon_loss", {"all-gather", "reduce-scatter", "all-reduce"}),
        ("barlow_twins_loss", {"all-reduce"}),
    ],
)
def test_the_compiled_program_divides_the_work(name, sent):
    n, dim, devices = 256, 32, 4
    loss = getattr(losses, name)
    labelled = name == "supcon_loss"
    shapes = [((n, dim), np.float32), ((n,), np.int32) if labelled else ((n, dim), np.float32)]

    def compiled(sharding):
        args = [jax.ShapeDtypeStruct(*shape, sharding=sharding) for shape in shapes]
        step = jax.value_and_grad(loss, argnums=0 if labelled else (0, 1))
        return jax.jit(step).lower(*args).compile()

    one, many = compiled(None), compiled(NamedSharding(mesh_of(batch=devices), P("batch")))
    operations = [op for op, _ in executed(many.as_text()) if op.opcode in sent | {"all-gather"}]
    assert {op.opcode for op in operations} == sent
    assert max(shape.entries for op in operations for shape in op.shapes) <= 2 * n * dim
    share = many.cost_analysis()["flops"] / one.cost_analysis()["flops"]
    assert share < 1.3 / devices


def weighted(z1, z2, **keywords):
    """A sum of npairs_loss's values per anchor that tells their order."""
    values = losses.npairs_loss(z1, z2, reduce_fn=None, **keywords)
    return jnp.sum(values * jnp.sin(jnp.arange(len(values), dtype=jnp.float32)))


SQUARE = {"x": 2, "y": 2}


PLACES = {
    "over two axes": lambda mesh: put(mesh, (Z1, Z2), ("x", "y")),
    "over two axes in the other order": lambda mesh: put(mesh, (Z1, Z2), ("y", "x")),
    "features too": lambda mesh: put(mesh, (Z1, Z2), "x", "y"),
    "over one of two axes": lambda mesh: put(mesh, (Z1, Z2), "y"),
    "one side alone": lambda mesh: (Z1, put(mesh, Z2, ("x", "y"))),
    "sides apart": lambda mesh: (put(mesh, Z1, "x"), put(mesh, Z2, "y", "x")),
    "features alone": lambda mesh: put(mesh, (Z1, Z2), None, "x"),
}


@pytest.mark.parametrize("place", slow_unless(lambda p: "other" in p or "apart" in p, PLACES))
def test_wherever_the_rows_are(place):
    step = jax.jit(functools.partial(value_and_grads, weighted))
    check(step(*PLACES[place](mesh_of(**SQUARE))), step(Z1, Z2))


def test_calls_outside_of_jit_find_their_program_again():
    traced = []

    @over_mesh
    def loss(z, *, power, axis_name=None):
        traced.append(power)
        return collectives.mean(jnp.mean(z**power), axis_name)

    mesh = mesh_of(batch=4)
    with jax.set_mesh(mesh):
        z = put(mesh, Z1, "batch")
        for _ in range(2):
            check(loss(z, power=2), np.mean(Z1**2))
            check(loss(z, power=jnp.array([3])), np.mean(Z1**3))
            check(jax.grad(loss)(z, power=2), Z1 / Z1.size * 2)
        check(losses.alignment_loss(z, Z2), jax.jit(losses.alignment_loss)(Z1, Z2))
    assert set(traced) == {2, 3}
    assert len(traced) == 2


def test_negatives_of_each_anchor_and_a_queue():
    rng = np.random.default_rng(1)
    queued, each_own = (rng.normal(size=s).astype(np.float32) for s in ((8, 6), (16, 3, 6)))
    negatives = (queued, np.arange(8)), (each_own, np.arange(48).reshape(16, 3) % 20)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def step(z1, own, z2, own_ids, queued, queued_ids):
        keywords = {"ids": np.arange(16), "in_batch": False, "reduce_fn": None}
        of_queue = losses.info_nce_loss(z1, z2, queued, negative_ids=queued_ids, **keywords)
        of_own = losses.info_nce_loss(z1, z2, own, negative_ids=own_ids, **keywords)
        return jnp.sum((of_queue + of_own) * jnp.cos(jnp.arange(16.0)))

    (queued, queued_ids), (own, own_ids) = negatives
    args = Z1, own, Z2, own_ids, queued, queued_ids
    check(step(*put(mesh_of(batch=4), args, "batch")), step(*args))


def test_a_queue_takes_the_rows_of_all_devices():
    state = queue.init(jax.random.key(0), size=18, dim=6)
    ids, where, mesh = np.arange(16), np.arange(16) % 5 != 1, mesh_of(batch=4)
    push = jax.jit(queue.push)
    expected = push(state, Z1, ids=ids, where=where)
    got = push(put(mesh, state), put(mesh, Z1, "batch"), ids=ids, where=where)
    check(got, expected)
    assert got.z.sharding.is_fully_replicated


def test_bfloat16_trailing_axes_masks_and_both_views_in_order():
    z1, z2 = (z.reshape(16, 1, 2, 3).astype(jnp.bfloat16) for z in (Z1, Z2))
    where = np.arange(16) % 3 != 1

    def loss(z1, z2, where):
        values = losses.ntxent_loss(z1, z2, where=where, reduce_fn=None)
        return jnp.sum(values * jnp.sin(jnp.arange(32, dtype=jnp.float32)))

    step = jax.jit(functools.partial(value_and_grads, loss))
    expected = step(z1, z2, where=where)
    got = step(*put(mesh_of(batch=4), (z1, z2), "batch"), where=where)
    assert got[1][0].dtype == jnp.bfloat16
    check(got, expected, 1e-2)


def test_a_stack_of_batches():
    stacks = np.stack([Z1, Z2]), np.stack([Z2, Z1])
    step = jax.jit(jax.vmap(functools.partial(value_and_grads, weighted)))
    check(step(*put(mesh_of(batch=4), stacks, None, "batch")), step(*stacks))


def test_second_derivatives():
    def curvature(z):
        gradient = jax.grad(losses.vicreg_loss)
        return jax.grad(lambda z: jnp.sum(jnp.sin(gradient(z, jnp.roll(z, 1, axis=1)))))(z)

    check(jax.jit(curvature)(put(mesh_of(batch=4), Z1, "batch")), jax.jit(curvature)(Z1), 1e-5)


def test_inside_of_shard_map_over_another_axis_the_batch_is_that_of_the_others():
    def gradients(a, b):
        value, grads = value_and_grads(losses.npairs_loss, a[0], b[0])
        return value[None], jax.tree.map(lambda g: g[None], grads)

    mesh, stacks = mesh_of(**SQUARE), (np.stack([Z1, Z2]), np.stack([Z2, Z1]))
    specs = {"in_specs": P("x"), "out_specs": P("x"), "axis_names": {"x"}}
    got = jax.jit(jax.shard_map(gradients, mesh=mesh, **specs))(*put(mesh, stacks, "x", "y"))
    plain = jax.jit(functools.partial(value_and_grads, losses.npairs_loss))
    check(got, jax.tree.map(lambda *both: np.stack(both), plain(Z1, Z2), plain(Z2, Z1)))


def test_what_is_wrong_is_said_of_the_whole_batch():
    z1, z2 = put(mesh_of(batch=4), (Z1, Z2), "batch")
    with pytest.raises(ValueError, match=r"shape of z1, \(16, 6\), got \(16, 5\)"):
        losses.clip_loss(z1, z2[:, :5])
    with pytest.raises(ValueError, match=r"weights must have shape \(16,\).*got \(16, 1\)"):
        losses.clip_loss(z1, z2, weights=np.ones((16, 1)))
    with pytest.raises(ValueError, match=r"where must have shape \(16,\).*got \(15,\)"):
        losses.clip_loss(z1, z2, where=np.ones(15, bool))
    with pytest.raises(ValueError, match="temperature must be a positive number"):
        losses.clip_loss(z1, z2, temperature=jnp.array(-1.0))
    with pytest.raises(ValueError, match=r"temperature must be .*\[0.1, 0.2\]"):
        losses.clip_loss(z1, z2, temperature=[0.1, 0.2])
    with pytest.raises(ValueError, match="axis_name='batch' is not bound here"):
        losses.clip_loss(z1, z2, axis_name="batch")


def test_ids_of_64_bits_are_not_truncated():
    ids = np.arange(16) % 8 + (np.arange(16) // 8 << 32)  # all differ
    loss = jax.jit(functools.partial(losses.npairs_loss, ids=ids))
    check(loss(*put(mesh_of(batch=4), (Z1, Z2), "batch")), jax.jit(losses.npairs_loss)(Z1, Z2))
