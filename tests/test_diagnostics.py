"""The numbers against formulas, and the verdicts against batches made to deserve them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcon import diagnostics, losses

RNG = np.random.default_rng(0)


def report(z1, z2=None, temperature=1.0):
    return diagnostics.collapse_report(z1, z1 if z2 is None else z2, temperature=temperature)


def test_chance_loss_is_the_loss_of_equal_candidates():
    same = jnp.ones((7, 5))
    assert diagnostics.chance_loss(7) == pytest.approx(math.log(7))
    assert float(losses.npairs_loss(same, same)) == pytest.approx(diagnostics.chance_loss(7))
    assert float(losses.ntxent_loss(same, same)) == pytest.approx(diagnostics.chance_loss(13))


@pytest.mark.parametrize("bad", [0, -3, 2.5])
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
        assert diagnostics.effective_rank(rows) == pytest.approx(k)


def test_effective_rank_of_rows_that_hardly_differ_is_zero():
    base = np.ones((10, 4))
    assert diagnostics.effective_rank(base) == 0
    assert diagnostics.effective_rank(np.zeros((10, 4))) == 0
    assert diagnostics.effective_rank(base + 1e-4 * RNG.normal(size=(10, 4))) == 0  # energy 1e-8
    assert diagnostics.effective_rank(base + 1e-2 * RNG.normal(size=(10, 4))) > 2  # energy 1e-4


def test_the_three_batches_of_the_first_post_get_three_verdicts():
    ones = jnp.ones((7, 768))
    distinct = jnp.asarray(RNG.uniform(size=(7, 768)))  # as the post's: none negative
    equal, opposite, healthy = report(ones), report(ones, -ones), report(distinct)
    assert [equal.loss, opposite.loss] == pytest.approx([math.log(7)] * 2, rel=1e-5)
    assert healthy.relative_loss > 0.8, "at temperature 1 the loss hardly tells: that is the point"
    assert equal.verdict.startswith("complete collapse")
    assert opposite.verdict.startswith("complete collapse")
    assert healthy.verdict.startswith("healthy")
    assert equal.positive_similarity == pytest.approx(1, abs=1e-5)
    assert opposite.positive_similarity == pytest.approx(-1, abs=1e-5)


def test_rows_along_a_line_are_a_dimensional_collapse():
    line = np.outer(RNG.normal(size=64), np.eye(32)[0]) + 1e-3 * RNG.normal(size=(64, 32))
    result = report(line.astype(np.float32))
    assert result.verdict.startswith("dimensional collapse")
    assert result.effective_rank < 3


def test_rows_nearly_equal_are_a_complete_collapse():
    rows = 1 + 0.02 * RNG.normal(size=(64, 32))
    assert report(rows.astype(np.float32)).verdict.startswith("complete collapse")


def test_one_collapsed_tower_is_named():
    z = jnp.asarray(RNG.normal(size=(16, 8)), jnp.float32)
    assert "all rows of z2 point" in report(z, jnp.ones_like(z)).verdict


def test_unrelated_rows_are_unaligned():
    z1, z2 = RNG.normal(size=(2, 64, 32)).astype(np.float32)
    assert report(z1, z2).verdict.startswith("unaligned")


def test_mean_cosine_is_that_of_different_rows():
    z = np.random.default_rng(3).normal(size=(6, 2, 2)) + 0.5
    z[2] = 0  # no direction: a cosine of 0 with every row
    u = [row.ravel() / (np.linalg.norm(row) or 1) for row in z]
    expected = np.mean([u[i] @ u[j] for i in range(6) for j in range(6) if i != j])
    np.testing.assert_allclose(diagnostics.mean_cosine(z), expected, rtol=1e-5)


def test_numbers_of_the_report():
    z1, z2 = RNG.normal(size=(2, 20, 6)).astype(np.float32)
    u1, u2 = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z1, z2))
    cos = u1 @ u2.T
    beside = cos[~np.eye(20, dtype=bool)]
    result = report(z1, z2, temperature=0.3)
    assert result.loss == pytest.approx(float(losses.clip_loss(z1, z2, temperature=0.3)))
    assert result.relative_loss == pytest.approx(result.loss / math.log(20))
    assert result.positive_similarity == pytest.approx(np.diagonal(cos).mean(), abs=1e-6)
    assert result.negative_similarity == pytest.approx(beside.mean(), abs=1e-6)
    assert result.negative_spread == pytest.approx(beside.std(), rel=1e-5)
    assert result.alignment == pytest.approx(((u1 - u2) ** 2).sum(1).mean(), rel=1e-5)
    assert result.relative_rank == pytest.approx(result.effective_rank / 6)
    np.testing.assert_allclose(result.feature_std, (u1.std(0) + u2.std(0)) / 2, rtol=1e-5)
    assert str(result).splitlines()[0] == result.verdict


def test_features_of_any_rank():
    z = RNG.normal(size=(8, 2, 3, 4)).astype(np.float32)
    assert report(z).loss == pytest.approx(report(z.reshape(8, 24)).loss)


# Grades. The bounds are derived in docs/collapse.md.


def test_values_that_are_not_finite_are_no_collapse():
    z = RNG.normal(size=(64, 16)).astype(np.float32)
    bad = z.copy()
    bad[7, 3], bad[9, 0] = np.nan, np.inf
    found = report(bad, z)
    assert (
        found.verdict
        == "not finite: 2 rows of z1 (the first is row 7) hold NaN or infinity, of 64 pairs"
    )
    assert report(z, bad).verdict.startswith("not finite: 2 rows of z2 (the first is row 7)")
    assert np.isnan(found.effective_rank)
    assert np.isnan(diagnostics.contrastive_accuracy(bad, z))
    assert "and" in report(bad, bad).verdict


def random_pairs(n, dim):
    """Pairs of rows drawn apart: what finds its pair does so by luck."""
    return RNG.normal(size=(2, n, dim)).astype(np.float32)


@pytest.mark.parametrize("n", [2, 7, 16, 64])
@pytest.mark.parametrize("dim", [1, 2, 32])
def test_the_number_of_pairs_found_by_luck_is_below_its_bound(n, dim):
    """At most 1 in 7! for 7 of them: here counted in 20,000 shuffles of given rows."""
    z1, z2 = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in random_pairs(n, dim))
    nearest = np.argmax(z1 @ z2.T, axis=1)  # row i finds its pair where the lot gives it this one
    lots = np.argsort(RNG.random((20_000, n)), axis=1)
    hits = np.sum(lots == nearest, axis=1)
    for k in (2, 3, 4, 7):
        share = np.mean(hits >= k)
        bound = 1 / math.factorial(k)
        assert share <= bound + 4 * math.sqrt(bound / len(lots)), k


def test_unrelated_rows_are_never_healthy():
    """16 rows of 32: by three standard deviations of a count they were, in 1.5 to 4 of 100 cases."""
    for _ in range(200):
        assert report(*random_pairs(16, 32)).verdict.startswith("unaligned")


@pytest.mark.parametrize("n", [2, 3, 6])
def test_too_few_pairs_are_undecided_even_if_perfect(n):
    z = np.eye(n, 16, dtype=np.float32)
    verdict = report(z, temperature=0.1).verdict
    assert verdict.startswith("undecided")
    assert "100 % find their pair, but of fewer than 7 pairs that may be luck" in verdict


def cone(cosine, n, dim):
    """Different rows whose mean cosine is about that, none along another."""
    u = RNG.normal(size=(n, dim))
    u = u / np.linalg.norm(u, axis=1, keepdims=True)
    u[:, 0] = 0
    u = math.sqrt(1 - cosine) * u / np.linalg.norm(u, axis=1, keepdims=True)
    u[:, 0] = math.sqrt(cosine)
    return u.astype(np.float32)


@pytest.mark.parametrize(
    ("cosine", "temperature"), [(0.988, 1.0), (0.968, 0.5), (0.968, 1.0), (0.98, 0.1)]
)
def test_a_narrow_cone_is_neither_a_collapse_nor_healthy(cosine, temperature):
    z = cone(cosine, 32, 64)
    result = report(z, temperature=temperature)
    assert result.accuracy == 1
    assert result.verdict.startswith("narrow cone: rows of z1 and of z2")
    assert f"mean cosine of {diagnostics.mean_cosine(z):.3f}" in result.verdict
    assert "of chance" in result.verdict
    assert "temperature" in result.verdict


def test_a_cone_is_no_matter_where_the_loss_can_still_tell():
    assert report(cone(0.968, 32, 64), temperature=0.01).verdict.startswith("healthy")
    assert report(cone(0.5, 32, 64), temperature=1.0).verdict.startswith("healthy")


def test_positive_rows_far_from_zero_are_a_narrow_cone():
    z = np.abs(RNG.normal(size=(64, 32))).astype(np.float32) + 5
    assert report(z).verdict.startswith("narrow cone")


def test_the_narrow_side_is_named():
    wide, narrow = RNG.normal(size=(32, 64)).astype(np.float32), cone(0.98, 32, 64)
    assert "rows of z2 differ" in report(wide, narrow).verdict


def test_the_cones_bound_is_that_of_the_losses_range():
    """Around the cosine where the open range is a tenth, found by bisection on the loss itself."""
    n, temperature = 32, 0.5

    def best(cosine):
        """The loss of pairs at cosine 1, all others at this one."""
        logits = np.full((n, n), cosine / temperature)
        np.fill_diagonal(logits, 1 / temperature)
        return float(np.mean(np.log(np.exp(logits).sum(1)) - np.diagonal(logits)))

    least = best(-1 / (n - 1))
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        wide = (math.log(n) - best(middle)) / (math.log(n) - least) > 0.1
        low, high = (middle, high) if wide else (low, middle)
    assert report(cone(low - 0.01, n, 512), temperature=temperature).verdict.startswith("healthy")
    narrow = report(cone(low + 0.01, n, 512), temperature=temperature).verdict
    assert narrow.startswith("narrow cone")


def test_arrays_of_an_explicit_mesh():
    z = RNG.normal(size=(16, 8)).astype(np.float32)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))
    spread = jax.device_put(z, NamedSharding(mesh, P("x")))
    assert report(spread).verdict == report(z).verdict
    assert float(diagnostics.contrastive_accuracy(spread, spread)) == 1
    np.testing.assert_allclose(
        diagnostics.mean_cosine(spread), diagnostics.mean_cosine(z), rtol=1e-5
    )
    assert diagnostics.effective_rank(spread) == pytest.approx(diagnostics.effective_rank(z))


def test_strict_modes():
    z = RNG.normal(size=(9, 5)).astype(np.float32)
    with jax.numpy_rank_promotion("raise"), jax.debug_nans(True), jax.checking_leaks():
        report(z)
        diagnostics.mean_cosine(z)
        diagnostics.effective_rank(z)


def test_without_rows():
    none = np.zeros((0, 4), np.float32)
    for function in (report, diagnostics.mean_cosine, diagnostics.effective_rank):
        with pytest.raises(ValueError, match=r"expected|must be"):
            function(none)
    with pytest.raises(ValueError, match=r"one shape.*\(0, 4\)"):
        diagnostics.contrastive_accuracy(none, none)


def test_bad_input():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"at least 2 pairs, got 1"):
        report(jax.random.normal(key, (1, 4)))
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(5, 3\)"):
        report(jnp.ones((4, 3)), jnp.ones((5, 3)))
