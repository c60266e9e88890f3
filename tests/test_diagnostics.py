"""The numbers against formulas, and the verdicts against batches made to deserve them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def test_bad_input():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"at least 2 pairs, got 1"):
        report(jax.random.normal(key, (1, 4)))
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(5, 3\)"):
        report(jnp.ones((4, 3)), jnp.ones((5, 3)))
