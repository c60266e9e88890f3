"""Distances keep their digits between rows that are far closer to each other than to 0.

Expected values are those of the same float32 rows, by differences in float64.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxcon import collectives, losses
from jaxcon.similarity import squared_distance
from jaxcon.similarity.distances import (
    add_pulled_back,
    centred_rows,
    nearest,
    squared_distances,
    squares_and_near,
)
from tests.losses.calls import gap

N, DIM = 24, 16
RNG = np.random.default_rng(0)


def spread(kind, apart):
    """Rows that differ by about `apart`: around one point, far from 0, in clusters, or in pairs."""
    noise = RNG.normal(size=(N, DIM))
    centre = {
        "one point": RNG.normal(size=(1, DIM)),
        "far from 0": np.full((1, DIM), 300.0),
        "clusters": np.repeat(RNG.normal(size=(N // 6, DIM)), 6, axis=0),
        "pairs": np.repeat(RNG.normal(size=(N // 2, DIM)), 2, axis=0),
    }[kind]
    return np.float32(centre + apart * noise)


def exact(x, y):
    return np.sum((np.float64(x)[:, None, :] - np.float64(y)[None, :, :]) ** 2, axis=2)


@pytest.mark.parametrize(
    ("kind", "apart"),
    [
        *(("one point", r) for r in (1.0, 1e-2, 5e-4, 1e-6)),
        *(("far from 0", r) for r in (1.0, 1e-3)),
        *((kind, r) for kind in ("clusters", "pairs") for r in (1e-3, 1e-6)),
    ],
)
def test_squared_distances_to_a_thousandth(kind, apart):
    x = spread(kind, apart)
    got = np.asarray(squared_distance(x, x))
    np.testing.assert_allclose(got, exact(x, x), rtol=1e-3)
    assert (np.diagonal(got) == 0).all()


@pytest.mark.parametrize(("kind", "apart"), [("one point", 5e-4), ("pairs", 1e-5)])
def test_their_derivatives(kind, apart):
    """Gradient, forward mode and the gradient of a gradient, of a function of all distances."""
    x = spread(kind, apart)
    weights = RNG.uniform(0.5, 1.5, size=(N, N))

    def energy(x):
        square = squared_distance(x, x) + jnp.eye(N, dtype=x.dtype)
        roots = jnp.sqrt(square) * (1 - jnp.eye(N, dtype=x.dtype))
        return jnp.sum(weights.astype(x.dtype) * roots) / apart

    def slope(x):
        return jnp.sum(jax.grad(energy)(x) * jnp.sin(jnp.arange(DIM, dtype=x.dtype)))

    direction = RNG.normal(size=x.shape)

    @jax.jit
    def derivatives(x):
        _, along = jax.jvp(energy, (x,), (jnp.asarray(direction, x.dtype),))
        return jax.grad(energy)(x), along, apart * jax.grad(slope)(x)

    got = jax.tree.map(np.asarray, derivatives(x))
    with jax.enable_x64(True):
        expected = jax.tree.map(np.asarray, derivatives(np.float64(x)))
    for one, other in zip(got, expected, strict=True):
        assert gap(one, other) < 1e-3
    assert gap(got[1], np.sum(np.float64(got[0]) * direction)) < 1e-3


@pytest.mark.parametrize("apart", [1.0, 1e-2, 1e-4, 1e-6])
def test_the_nearest_is_no_farther_than_any_other_by_a_thousandth(apart):
    rng = np.random.default_rng(0)
    x = np.float32(rng.normal(size=(1, 24)) + apart * rng.normal(size=(50, 24)))
    y = np.float32(np.concatenate([x[:20] + apart / 100, rng.normal(size=(15, 24))]))
    keep = rng.random((50, 35)) < 0.7
    keep[4] = False
    square = np.where(keep, ((np.float64(x)[:, None] - y[None]) ** 2).sum(2), np.inf)
    index = np.asarray(jax.jit(lambda x, y: nearest(x, y, lambda i: jnp.asarray(keep)[i]))(x, y))
    assert index[4] == 0
    rows = np.flatnonzero(keep.any(1))
    assert keep[rows, index[rows]].all()
    assert (np.sqrt(square[rows, index[rows]]) <= 1.001 * np.sqrt(square[rows].min(1))).all()


def test_the_nearest_of_more_pairs_than_are_held_at_a_time():
    x = np.float32(np.random.default_rng(0).normal(size=(5000, 3)))
    index = jax.jit(lambda x: nearest(x, x, lambda i: i[:, None] != jnp.arange(5000)))(x)
    apart, expected = scipy.spatial.cKDTree(x).query(x, k=2)
    same = np.asarray(index) == expected[:, 1]
    assert same.mean() > 0.999  # the others are as near, to rounding
    found = np.linalg.norm(x - x[np.asarray(index)], axis=1)
    np.testing.assert_allclose(found, apart[:, 1], rtol=1e-3)


@pytest.mark.parametrize("apart", [1.0, 1e-4])
def test_what_is_added_in_place_is_the_gradient_of_some_rows_with_all(apart):
    """One row is there twice, with no cotangent where it fills up; some rows are close to others."""
    x, i = spread("pairs", apart), jnp.array([5, 8, 9, 8])
    x[4] = x[5] + 1e-4  # of two far spread, only these are close
    cotangent = jnp.array(RNG.normal(size=(4, N)), jnp.float32).at[3].set(0)
    start = jnp.array(apart * RNG.normal(size=x.shape), jnp.float32)

    @jax.jit
    def added(x):
        y = centred_rows(x)
        others = i[:, None] != jnp.arange(N)  # by themselves all rows would be close to another
        _, near = squares_and_near(y[i], y, others, precision="highest", centred=True)
        return add_pulled_back(start, y, i, near, cotangent, precision="highest") - start

    def energy(x):
        return jnp.sum(cotangent * squared_distance(x[i], x))

    got = added(x)
    with jax.enable_x64(True):
        expected = jax.jit(jax.grad(energy))(np.float64(x))
    assert gap(got, expected) < 1e-3


def test_pairs_that_do_not_matter_are_not_mended():
    x = spread("pairs", 1e-6)
    keep = np.add.outer(np.arange(N) // 2, -(np.arange(N) // 2)) != 0
    got = np.asarray(squared_distances(x, x, keep))
    np.testing.assert_allclose(got[keep], exact(x, x)[keep], rtol=1e-3)


def test_rows_of_bfloat16_are_computed_in_float32():
    x = jnp.asarray(spread("one point", 0.02), jnp.bfloat16)
    got = squared_distances(x, x, precision=jax.lax.Precision.HIGH)
    np.testing.assert_allclose(got, exact(np.float32(x), np.float32(x)), rtol=1e-3)


def test_under_vmap_each_batch_is_as_by_itself():
    x = np.stack([spread("pairs", 1e-5), spread("one point", 1.0)])
    got = jax.jit(jax.vmap(squared_distance))(x, x)
    np.testing.assert_allclose(got, [exact(z, z) for z in x], rtol=1e-3)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_is_not_finite_stays_visible_in_its_own_row(poison):
    x = spread("one point", 1e-3)
    x[3, 2] = poison
    got = np.asarray(squared_distance(x, x))
    assert not np.isfinite(got[3]).any()
    others = np.delete(np.arange(N), 3)
    np.testing.assert_allclose(got[np.ix_(others, others)], exact(x[others], x[others]), rtol=1e-3)


LABELS = np.arange(N) // 4


def gaussian(z, r, **keywords):
    log_std = jnp.full(N // 2, np.log(r)).astype(z.dtype)
    return losses.gaussian_clip_loss(z[::2], z[1::2], log_std, log_std, **keywords)


# Each takes rows and how far they are apart, and is of the order of 1 for all r.
LOSSES = {
    "triplet": lambda z, r, **k: losses.triplet_loss(z, LABELS, margin=2 * r, **k) / r,
    "semi_hard": lambda z, r, **k: (
        losses.triplet_loss(z, LABELS, margin=2 * r, mining=losses.semi_hard, **k) / r
    ),
    "hardest": lambda z, r, **k: (
        losses.triplet_loss(z, LABELS, margin=2 * r, mining=losses.hardest, **k) / r
    ),
    "koleo": lambda z, r, **k: losses.koleo_loss(z, **k) + np.log(r),
    "alignment": lambda z, r, **k: losses.alignment_loss(z[::2], z[1::2], alpha=1.0, **k) / r,
    "gaussian": gaussian,
}


def step(name, apart, **keywords):
    return jax.jit(jax.value_and_grad(lambda z: LOSSES[name](z, apart, **keywords)))


@pytest.mark.parametrize("apart", [5e-4, pytest.param(2e-5, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        *((name, {}) for name in LOSSES),
        ("gaussian", {"block_size": 5}),
        ("gaussian", {"block_size": 5, "exact": True}),
    ],
    ids=lambda v: v if isinstance(v, str) else "-".join(v),
)
def test_losses_of_rows_that_differ_little(name, keywords, apart):
    z = spread("one point", apart)
    value, gradient = step(name, apart, **keywords)(z)
    with jax.enable_x64(True):
        expected, expected_gradient = step(name, apart, **keywords)(np.float64(z))
    assert gap(value, expected) < 1e-3
    assert gap(gradient, expected_gradient) < 2e-3
    assert np.linalg.norm(expected_gradient) > 0


@pytest.mark.parametrize("exchange", [collectives.gather, collectives.ring])
def test_on_devices_in_tiles(exchange):
    """Pairs (row 2 i, row 2 i + 1) on 4 devices: the values of one device in float64."""
    z, apart = spread("one point", 5e-4), 5e-4
    log_std = np.full(N // 2, np.log(apart), np.float32)

    def value(z1, z2, log_std):
        return losses.gaussian_clip_loss(
            *(z1, z2, log_std, log_std), axis_name="batch", exchange=exchange, block_size=2
        )

    mesh = Mesh(np.array(jax.devices()[:4]), ("batch",))
    mapped = jax.shard_map(value, mesh=mesh, in_specs=P("batch"), out_specs=P())
    got = jax.jit(mapped)(z[::2], z[1::2], log_std)
    with jax.enable_x64(True):
        expected = jax.jit(lambda z: gaussian(z, apart))(np.float64(z))
    assert gap(got, expected) < 1e-3


def test_the_cases_of_the_issue():
    """Rows that differ by 5e-4, and a deviation of e^-8: once a gradient of 0, 0.0 and 0.871."""
    a = np.float32([[1, 0, 0, 0]] * 3)
    a[1, 1], a[2, 2] = 5e-4, 6e-4
    labels = np.array([0, 0, 1])
    semi_hard = functools.partial(losses.triplet_loss, margin=0.2, mining=losses.semi_hard)
    loss = jax.jit(semi_hard)(a, labels)
    gaps = np.array([6e-4 - 5e-4, np.hypot(5e-4, 6e-4) - 5e-4])  # of the anchors 0 and 1
    np.testing.assert_allclose(loss, 0.2 - gaps.mean(), rtol=1e-6)
    gradient = jax.jit(jax.grad(losses.triplet_loss))(a, labels)
    assert np.linalg.norm(gradient) > 0.1
