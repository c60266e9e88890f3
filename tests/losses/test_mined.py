"""The triplet loss for some anchors at a time is what it is for all at once, in every derivative.

A rule with few pairs makes small batches take the form of large ones.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxcon import losses
from jaxcon.streaming import rules
from tests.losses.calls import gap
from tests.losses.case import N
from tests.losses.cases import CASES
from tests.losses.devices import MODES, alone, spread
from tests.losses.test_contract_extremes import assert_finite
from tests.marks import exhaustive_unless

FORMS = [case for case in CASES if case.name == "triplet_loss"]
ROWS = 23  # with 70 pairs at a time: 8 blocks of 3 anchors, of which the last has 2
LABELS = np.random.default_rng(0).integers(0, 5, ROWS)

each_form = pytest.mark.parametrize("case", FORMS, ids=lambda case: case.id)


def in_blocks(pairs=70):
    return rules.in_force(dataclasses.replace(rules.current(), mined_pairs=pairs))


def anew(case):
    """The same case, for which nothing is compiled yet."""
    return dataclasses.replace(case)


def rows(apart=1.0):
    """Rows of float64 around one point; two of one label and two of different labels are equal."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=6) + apart * rng.normal(size=(ROWS, 6))
    pairs = (
        np.argwhere(np.triu(LABELS[:, None] == LABELS, 1))[0],
        np.argwhere(LABELS[0] != LABELS)[0],
    )
    z[pairs[0][1]] = z[pairs[0][0]]
    z[pairs[1][0]] = z[0]
    return z


def differ(transform, f, *arguments):
    """How much a transformed f differs in blocks from itself with all anchors at once, by its norm."""
    expected = jax.jit(transform(lambda *a: f(*a)))(*arguments)
    with in_blocks():
        got = jax.jit(transform(lambda *a: f(*a)))(*arguments)  # anew: nothing of f is compiled yet
    assert all(np.any(leaf) for leaf in jax.tree.leaves(expected))
    return gap(got, expected)


@each_form
@pytest.mark.parametrize("masked", [True, False])
def test_blocks_that_do_not_divide_the_batch(case, masked):
    inputs = case.inputs(seed=61)
    keywords = case.rows(seed=61) if masked else case.neutral()
    expected = alone(case, inputs, keywords, np.float64)
    with in_blocks(3 * N):
        assert gap(alone(anew(case), inputs, keywords, np.float64), expected) < 1e-12


@pytest.mark.parametrize("mode", exhaustive_unless(lambda m: m in ("vmap", "shard_map"), MODES))
def test_on_devices(mode):
    case = FORMS[0]
    inputs, keywords = case.inputs(seed=62), case.rows(seed=62)
    expected = alone(case, inputs, keywords, np.float64)
    with in_blocks(N):  # two anchors on each device, one at a time
        got = spread(anew(case), mode, 8, inputs, keywords, np.float64)
    assert gap(got, expected) < 1e-12


def objective(reduce_fn, mining=losses.all_triplets):
    """`(z, weights, margin) -> value`; of values per anchor, a sum with factors."""

    def value(z, weights, margin):
        values = losses.triplet_loss(
            *(z, LABELS), mining=mining, weights=weights, margin=margin, reduce_fn=reduce_fn
        )
        return jnp.sum(values * jnp.sin(weights)) if reduce_fn is None else values

    return value


def slope(f, at):
    """A function of the gradient of f, with factors of the size of 1."""
    parts = jax.grad(f, argnums=range(len(at)))(*at)
    return sum(
        jnp.sum(g * jnp.cos(jnp.arange(g.size, dtype=g.dtype)).reshape(g.shape)) for g in parts
    )


@pytest.mark.parametrize("reduce_fn", [jnp.mean, jnp.sum, None])
def test_every_derivative(reduce_fn):
    """By rows, weights and margin: reverse and forward mode, and all four of the second order."""

    def derivatives(f):
        def of(*at):
            moved = tuple(jnp.cos(3 * a) for a in at)

            def along(*at):
                return jax.jvp(f, at, moved)[1]

            def sloped(*at):
                return slope(f, at)

            return {
                "reverse": jax.value_and_grad(f, argnums=(0, 1, 2))(*at),
                "forward": along(*at),
                "reverse over reverse": jax.grad(sloped, argnums=(0, 1))(*at),
                "forward over reverse": jax.jvp(sloped, at, moved)[1],
                "reverse over forward": jax.grad(along)(*at),
                "forward over forward": jax.jvp(along, at, moved)[1],
            }

        return of

    with jax.enable_x64(True):
        at = rows(), np.random.default_rng(2).uniform(0.5, 2, ROWS), np.float64(0.3)
        assert differ(derivatives, objective(reduce_fn), *at) < 1e-9


@pytest.mark.parametrize("mining", [losses.semi_hard, losses.hardest])
def test_other_minings_have_second_derivatives(mining):

    def curved(f):
        return jax.grad(lambda *at: slope(f, at))

    with jax.enable_x64(True):
        at = rows(), np.ones(ROWS), np.float64(0.3)
        assert differ(curved, objective(jnp.mean, mining), *at) < 1e-9


def beyond(z, least, excluded, **keywords):
    """A loss whose mining closes over arrays: a least distance, and a candidate left out."""

    def mining(distances, positives, negatives, margin):
        others = jnp.arange(len(distances)) != excluded
        near = negatives & (distances > jnp.sum(least)) & others
        return losses.all_triplets(distances, positives, near, margin)

    return losses.triplet_loss(z, LABELS[: len(z)], mining=mining, **keywords)


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: jax.value_and_grad(jax.jit(f)),
        lambda f: jax.value_and_grad(f),
        lambda f: jax.vmap(jax.value_and_grad(f), in_axes=(None, 0, None)),
        lambda f: jax.value_and_grad(lambda *a: jnp.sum(jax.vmap(f, (None, 0, None))(*a))),
        lambda f: jax.grad(lambda *a: jnp.sum(jax.grad(jax.jit(f))(*a) ** 2)),
    ],
    ids=["jit in grad", "grad in jit", "grad in vmap", "vmap in grad", "grad in grad"],
)
def test_mining_may_close_over_arrays_that_are_traced(transform):
    least, excluded = np.full((2, 2), 0.2), np.int32(3)
    with jax.enable_x64(True):
        assert differ(transform, beyond, rows(), least, excluded) < 1e-12


def test_mining_may_be_differentiated_by_what_it_closes_over():
    with jax.enable_x64(True), in_blocks():
        gradient = jax.grad(beyond, argnums=1)(rows(), np.full(2, 0.2), np.int32(3))
    np.testing.assert_array_equal(gradient, 0)  # counts are constant


def test_mining_may_close_over_arrays_under_shard_map():
    mesh = Mesh(np.array(jax.devices()[:2]), ("batch",))
    z, least, excluded = rows()[:22], np.full(2, 0.2), np.int32(3)

    def local(z, labels, least, excluded):
        def mining(distances, positives, negatives, margin):
            near = negatives & (distances > jnp.sum(least))
            near = near & (jnp.arange(len(distances)) != excluded)
            return losses.all_triplets(distances, positives, near, margin)

        return losses.triplet_loss(z, labels, mining=mining, axis_name="batch")

    specs = P("batch"), P("batch"), P(), P()
    mapped = jax.value_and_grad(jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P()))
    with jax.enable_x64(True):
        expected = jax.jit(jax.value_and_grad(beyond))(z, least, excluded)
        with in_blocks():
            got = jax.jit(mapped)(z, LABELS[:22], least, excluded)
    assert gap(got, expected) < 1e-12


@pytest.mark.parametrize("mining", [losses.all_triplets, losses.semi_hard, losses.hardest])
def test_rows_that_differ_little_and_equal_rows(mining):
    """In float32: the value and gradient of the same rows in float64."""
    apart = 5e-4

    def loss(z):
        return losses.triplet_loss(z, LABELS, margin=2 * apart, mining=mining) / apart

    z = np.float32(rows(apart))
    with in_blocks():
        got = jax.jit(jax.value_and_grad(loss))(z)
    with jax.enable_x64(True):
        expected = jax.jit(jax.value_and_grad(lambda z: loss(z)))(np.float64(z))
    assert gap(got, expected) < 2e-3


@each_form
def test_degenerate_batches_are_finite(case):
    with in_blocks(3 * N):
        assert_finite(anew(case), "float32")


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_is_not_finite_stays_visible(poison):
    z = rows()
    z[3, 0] = poison
    with in_blocks():
        for reduce_fn in (jnp.mean, jnp.sum):
            loss = functools.partial(losses.triplet_loss, reduce_fn=reduce_fn)
            assert not np.isfinite(jax.jit(loss)(np.float32(z), LABELS))


def test_another_reduction_is_refused():
    with in_blocks(), pytest.raises(ValueError, match="reduce_fn must be"):
        losses.triplet_loss(rows(), LABELS, reduce_fn=jnp.max)
