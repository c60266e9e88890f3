"""The numbers against formulas, and what they say of rows that are no numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxcon import diagnostics, losses

RNG = np.random.default_rng(0)


def test_chance_loss_is_the_loss_of_equal_candidates():
    same = jnp.ones((7, 5))
    assert diagnostics.chance_loss(7) == pytest.approx(math.log(7))
    assert float(losses.npairs_loss(same, same)) == pytest.approx(diagnostics.chance_loss(7))
    assert float(losses.ntxent_loss(same, same)) == pytest.approx(diagnostics.chance_loss(13))


@pytest.mark.parametrize("bad", [0, -3, 2.5, math.inf, math.nan])
def test_chance_loss_refuses_what_is_no_number_of_candidates(bad):
    with pytest.raises(ValueError, match=r"whole number >= 1, got"):
        diagnostics.chance_loss(bad)


def test_contrastive_accuracy_counts_rows_whose_pair_is_nearest():
    z1, z2 = RNG.normal(size=(2, 40, 3)).astype(np.float32)
    z2 += z1
    hits = 0
    for i in range(40):
        cosines = [a @ z1[i] / np.linalg.norm(a) / np.linalg.norm(z1[i]) for a in z2]
        hits += int(np.argmax(cosines) == i)
    assert float(diagnostics.contrastive_accuracy(z1, z2)) == pytest.approx(hits / 40)


def test_effective_rank_of_even_directions_is_their_number():
    for k in (1, 3, 6):
        rows = np.zeros((12, 9))
        rows[: 2 * k] = np.concatenate([np.eye(9)[:k], -np.eye(9)[:k]])
        for scale in (1, 1e-200, 1e200):
            assert diagnostics.effective_rank(scale * rows) == pytest.approx(k)


def test_effective_rank_of_rows_that_hardly_differ_is_zero():
    base = np.ones((10, 4))
    assert diagnostics.effective_rank(base) == 0
    assert diagnostics.effective_rank(np.zeros((10, 4))) == 0
    assert diagnostics.effective_rank(base + 1e-4 * RNG.normal(size=(10, 4))) == 0  # energy 1e-8
    assert diagnostics.effective_rank(base + 1e-2 * RNG.normal(size=(10, 4))) > 2  # energy 1e-4


def test_mean_cosine_is_that_of_different_rows():
    z = np.random.default_rng(3).normal(size=(6, 2, 2)) + 0.5
    z[2] = 0  # no direction: a cosine of 0 with every row
    u = [row.ravel() / (np.linalg.norm(row) or 1) for row in z]
    expected = np.mean([u[i] @ u[j] for i in range(6) for j in range(6) if i != j])
    for scale in (1, 1e-200, 1e200):  # float64 of NumPy, which float32 does not hold
        np.testing.assert_allclose(diagnostics.mean_cosine(scale * z), expected, rtol=1e-5)


def broken(value, *rows, shape=(9, 4)):
    z = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    z[list(rows), 2] = value
    return z


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_counted_and_named(value):
    bad, good = broken(value, 3, 7), broken(1.0)
    with pytest.raises(ValueError, match=r"not finite: 2 of 9 rows of z2 .* the first is row 3"):
        diagnostics.contrastive_accuracy(good, bad)
    with pytest.raises(ValueError, match=r"2 of 9 rows of z1 .* row 3; 1 of 9 rows of z2 .* row 0"):
        diagnostics.contrastive_accuracy(bad, broken(value, 0))
    for measure in (diagnostics.mean_cosine, diagnostics.effective_rank):
        with pytest.raises(ValueError, match=r"2 of 9 rows of z hold NaN or infinity"):
            measure(bad)


def test_traced_rows_that_are_not_finite_give_nan_and_no_accuracy():
    bad, good = broken(np.nan, 3), broken(1.0)
    accuracy, cosine = jax.jit(diagnostics.contrastive_accuracy), jax.jit(diagnostics.mean_cosine)
    assert np.isnan(accuracy(good, bad))
    assert np.isnan(accuracy(bad, good))
    assert np.isnan(cosine(bad))
    assert accuracy(good, good) == 1


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (4,)])
def test_arrays_without_rows_or_features_are_refused(shape):
    z = jnp.ones(shape)
    pairs = (diagnostics.contrastive_accuracy, z, z), (diagnostics.mean_cosine, z)
    for measure, *arguments in (*pairs, (diagnostics.effective_rank, z)):
        with pytest.raises(ValueError, match=r"at least one row and one feature, got shape \("):
            measure(*arguments)
    with pytest.raises(ValueError, match="expected at least 2, got 1"):
        diagnostics.mean_cosine(jnp.ones((1, 3)))


def test_a_dtype_that_is_not_float_is_refused_by_name():
    with pytest.raises(ValueError, match="z2 must be of a floating-point dtype, got int32"):
        diagnostics.contrastive_accuracy(jnp.ones((4, 3)), jnp.ones((4, 3), jnp.int32))


def everything(z1, z2):
    report = diagnostics.collapse_report(z1, z2, temperature=0.1)
    return [
        float(diagnostics.contrastive_accuracy(z1, z2)),
        float(diagnostics.mean_cosine(z1)),
        diagnostics.effective_rank(z1),
        report.loss,
        report.relative_rank,
    ]


def test_arrays_on_an_explicit_mesh_give_what_others_give():
    z1, z2 = RNG.normal(size=(2, 16, 2, 4)).astype(np.float32)
    z2 += z1
    mesh = jax.make_mesh((8,), ("x",))
    for spec in (P("x"), P()):
        sharding = jax.NamedSharding(mesh, spec)
        sharded = [jax.device_put(z, sharding) for z in (z1, z2)]
        np.testing.assert_allclose(everything(*sharded), everything(z1, z2), rtol=1e-5)
        np.testing.assert_allclose(everything(sharded[0], z2), everything(z1, z2), rtol=1e-5)
        traced = jax.jit(diagnostics.contrastive_accuracy)(*sharded)
        assert float(traced) == pytest.approx(everything(z1, z2)[0])


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("jax_numpy_rank_promotion", "raise"),
        ("jax_debug_nans", True),
        ("jax_enable_x64", True),
        ("jax_check_tracer_leaks", True),
    ],
)
def test_all_hold_under_every_configuration(setting, value):
    z1, z2 = RNG.normal(size=(2, 12, 5))
    z1[3] = 0  # no direction
    expected = everything(z1, z2)
    verdict = diagnostics.collapse_report(broken(np.nan, 3), z2[:9, :4], temperature=1.0).verdict
    before = getattr(jax.config, setting)
    jax.config.update(setting, value)
    try:
        np.testing.assert_allclose(everything(z1, z2), expected, rtol=1e-4)
        same = diagnostics.collapse_report(broken(np.nan, 3), z2[:9, :4], temperature=1.0).verdict
    finally:
        jax.config.update(setting, before)
    assert (
        same == verdict == "not finite: 1 of 9 rows of z1 hold NaN or infinity, the first is row 3"
    )
