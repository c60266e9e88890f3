"""In tiles, and with the candidates travelling in a ring, every loss is what it is as one matrix.

By default: tiles that do not divide the batch on one device, and for one loss of each family the ring
over 8 devices, tiles of sharded arrays and those that no `block_size` takes, in float64 with masks.
`-m exhaustive` adds tile edges, float32, and for all losses the ring over 1 to 8 devices in every
mode.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxcon import collectives, losses
from jaxcon.streaming import rules
from tests.losses.calls import arguments, gap, objective
from tests.losses.case import N
from tests.losses.cases import FAMILIES, TILED, each
from tests.losses.devices import alone, spread
from tests.marks import exhaustive_unless

TOLERANCE = {np.float32: 3e-6, np.float64: 1e-12}
RING_MODES = [
    *("vmap", "pmap", "shard_map", "shard_map unchecked"),
    *("shard_map 2-D", "shard_map 2-D unchecked"),
]
few_families = pytest.mark.parametrize(
    "name", exhaustive_unless(lambda name: name in ("ntxent_loss", "siglip_loss"), FAMILIES)
)
each_case = pytest.mark.parametrize("case", TILED, ids=lambda case: case.id)


def agree(case, dtype, masked=True, mode=None, devices=1, rule=None, **evaluation):
    """The case evaluated so, under a rule if given, equals it as it is, in value and gradients."""
    inputs = case.inputs(seed=23)
    rows = case.rows(seed=23) if masked else case.neutral()
    other = dataclasses.replace(case, settings={**case.settings, **evaluation})
    expected = alone(case, inputs, rows, dtype)
    with rules.in_force(rule or rules.current()):
        if mode is None:
            got = alone(other, inputs, rows, dtype)
        else:
            got = spread(other, mode, devices, inputs, rows, dtype)
    # Logits of the circle loss reach 300, which float32 holds to 1e-5.
    tolerance = TOLERANCE[dtype] * (3 if case.name == "circle_loss" else 1)
    # A value near 0 (a decoupled loss) is a difference of terms of about 1 / temperature.
    assert abs(got.value - expected.value) < tolerance * max(1, abs(expected.value))
    for part in ("encoder", "embeddings"):
        assert gap(getattr(got, part), getattr(expected, part)) < tolerance, part


def case_of(name):
    """The loss of that name as it is."""
    return next(case for case in TILED if case.name == name)


def in_float32(name):
    """Its case, embeddings with masks, and what else its objective takes."""
    case = case_of(name)
    embeddings, *others = arguments(
        case, case.inputs(seed=23), case.rows(seed=23), np.float32, None
    )
    return case, embeddings, others


def test_the_pairwise_families_are_all_here():
    names = {case.loss.__name__ for case in TILED}
    assert names >= {
        *("ntxent_loss", "info_nce_loss", "npairs_loss", "clip_loss", "supcon_loss", "dcl_loss"),
        *("hard_negative_loss", "siglip_loss", "gaussian_clip_loss", "csd_loss"),
    }


@each(lambda case: case in TILED)
def test_tiles_that_do_not_divide_the_batch(case):
    agree(case, np.float64, block_size=5)


@pytest.mark.parametrize("name", FAMILIES)
def test_ring_of_eight_devices(name):
    case = case_of(name)
    agree(case, np.float64, mode="shard_map", devices=8, exchange=collectives.ring)


@pytest.mark.parametrize(("mode", "devices"), [(None, 1), ("shard_map", 1), ("shard_map", 8)])
@few_families
def test_tiles_that_are_kept(name, mode, devices):
    """The form of medium batches, which small ones are made to take here."""
    case = case_of(name)
    line = rules.Line(block=5, lanes=1, kept_pairs=2**26)
    rule = rules.everywhere(line, whole_pairs=0, whole_pairs_of_one_set=0)
    agree(case, np.float64, mode=mode, devices=devices, rule=rule, block_size=None)


@pytest.mark.parametrize("mode", ["jit Auto", "jit Explicit"])
@few_families
def test_tiles_of_sharded_arrays(name, mode):
    agree(case_of(name), np.float64, mode=mode, devices=8, block_size=5)


@pytest.mark.parametrize("form", ["tiles", "ring"])
@pytest.mark.parametrize(
    ("name", "scalars"),
    [
        ("ntxent_loss", {"temperature": 0.3}),
        ("clip_loss", {"temperature": 0.3}),
        ("siglip_loss", {"temperature": 0.3, "bias": -1.0}),
        ("csd_loss", {"scale": 2.0, "shift": 1.0}),
    ],
)
def test_learned_scalars_have_the_same_gradient(name, scalars, form):
    case = case_of(name)
    rows = P("batch")

    def gradient(scalars, inputs, **keywords):
        positional = [inputs[name] for name in case.args]
        return jax.grad(lambda s: case.loss(*positional, **s, **keywords))(scalars)

    def ring(scalars, inputs):
        local = gradient(scalars, inputs, axis_name="batch", exchange=collectives.ring)
        return jax.lax.pmean(local, "batch")

    other = functools.partial(gradient, block_size=5)
    if form == "ring":
        mesh = Mesh(np.array(jax.devices()), ("batch",))
        other = jax.shard_map(ring, mesh=mesh, in_specs=(P(), rows), out_specs=P())
    with jax.enable_x64(True):
        arguments = jax.tree.map(np.float64, (scalars, case.inputs(seed=23)))
        expected, got = jax.jit(gradient)(*arguments), jax.jit(other)(*arguments)
        assert gap(got, expected) < 1e-12


@few_families
def test_values_per_anchor_in_tiles(name):
    case, embeddings, others = in_float32(name)

    def value_and_grad(**evaluation):
        anchors = objective(case, reduce_fn=None, **evaluation)

        def total(embeddings):
            values = anchors(embeddings, *others)
            return jnp.sum(values * jnp.sin(jnp.arange(len(values)))), values

        (_, values), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(embeddings)
        return values, grads

    (values, grads), (expected, expected_grads) = value_and_grad(block_size=5), value_and_grad()
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
    assert gap(grads, expected_grads) < 1e-5


@few_families
def test_bfloat16_is_rounded_once_and_accumulated_in_float32(name):
    case, embeddings, others = in_float32(name)

    def value_and_grad(**evaluation):
        return jax.jit(jax.value_and_grad(objective(case, **evaluation)))(embeddings, *others)

    value, grads = value_and_grad()
    half, half_grads = value_and_grad(precision=jnp.bfloat16)
    tiled, tiled_grads = value_and_grad(precision=jnp.bfloat16, block_size=5)
    assert 1e-6 * abs(value) < abs(half - value) < 3e-2 * max(1, abs(value))
    assert gap(half_grads, grads) < 3e-2
    assert abs(half - tiled) < 1e-5 * max(1, abs(value))
    assert gap(half_grads, tiled_grads) < 1e-2  # the tiles round the cotangents as well


def test_bfloat16_rounds_the_negatives_of_each_anchor_too():
    z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 32))
    negatives = jax.random.normal(jax.random.key(1), (8, 5, 32))
    full, half = (
        losses.info_nce_loss(z1, z2, negatives, in_batch=False, precision=precision)
        for precision in (jax.lax.Precision.HIGHEST, jnp.bfloat16)
    )
    assert half.dtype == jnp.float32
    assert 1e-6 < abs(half - full) < 3e-2


@few_families
def test_second_derivatives_in_tiles(name):
    case, embeddings, others = in_float32(name)

    def curvature(**evaluation):
        first = jax.grad(objective(case, **evaluation))

        def along(embeddings):
            pairs = zip(
                jax.tree.leaves(first(embeddings, *others)),
                jax.tree.leaves(embeddings),
                strict=True,
            )
            return sum(jnp.sum(g * jnp.cos(jax.lax.stop_gradient(z))) for g, z in pairs)

        return jax.jit(jax.grad(along))(embeddings)

    assert gap(curvature(block_size=5), curvature()) < 1e-4


@each_case
@pytest.mark.parametrize(
    ("block_size", "masked", "dtype"),
    [
        pytest.param(3, False, np.float32, marks=pytest.mark.slow),
        *(
            pytest.param(size, masked, dtype, marks=pytest.mark.exhaustive)
            for size in (1, 3, N // 2, N, 3 * N)
            for masked in (False, True)
            for dtype in (np.float32, np.float64)
            if (size, masked, dtype) != (3, False, np.float32)
        ),
    ],
)
def test_tiles_of_any_size(case, block_size, masked, dtype):
    agree(case, dtype, masked, block_size=block_size)


@each_case
@pytest.mark.parametrize(
    ("mode", "devices", "block_size"),
    [
        pytest.param("pmap", 4, None, marks=pytest.mark.slow),
        *(
            pytest.param(mode, devices, block_size, marks=pytest.mark.exhaustive)
            for mode in RING_MODES
            for devices in (1, 2, 4, 8)
            for block_size in (None, 3)
            if (mode, devices, block_size) != ("pmap", 4, None)
        ),
    ],
)
def test_ring_of_any_length_in_every_mode(case, mode, devices, block_size):
    if "2-D" in mode and devices == 1:
        pytest.skip("a mesh of two axes needs two devices")
    ring = collectives.ring
    agree(case, np.float64, mode=mode, devices=devices, exchange=ring, block_size=block_size)


@pytest.mark.exhaustive
@each_case
def test_ring_in_float32(case):
    agree(case, np.float32, mode="shard_map", devices=8, exchange=collectives.ring)


@pytest.mark.exhaustive
@each_case
@pytest.mark.parametrize("mode", RING_MODES)
def test_tiles_on_eight_devices(case, mode):
    agree(case, np.float64, mode=mode, devices=8, block_size=3)
