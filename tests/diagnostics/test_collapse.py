"""The report's numbers against formulas, and the verdicts against batches made to deserve them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon import diagnostics, losses
from tests.diagnostics.reports import kind, report

RNG = np.random.default_rng(0)


def cone(cosine, shape, seed=0):
    """Rows around the direction of (1, 1, ...) whose mean cosine with each other is given."""
    spread = math.sqrt(1 / cosine - 1)
    return 1 + spread * np.random.default_rng(seed).normal(size=shape)


# Collapse, and the cone between collapse and health.


def test_the_three_batches_of_the_first_post_get_three_verdicts():
    ones = jnp.ones((7, 768))
    distinct = jnp.asarray(RNG.uniform(size=(7, 768)))  # as the post's: none negative
    equal, opposite, healthy = report(ones), report(ones, -ones), report(distinct)
    assert [equal.loss, opposite.loss] == pytest.approx([math.log(7)] * 2, rel=1e-4)
    assert healthy.relative_loss > 0.8, "at temperature 1 the loss hardly tells: that is the point"
    assert equal.verdict.startswith("complete collapse")
    assert opposite.verdict.startswith("complete collapse")
    assert healthy.verdict.startswith("healthy")
    assert equal.positive_similarity == pytest.approx(1, abs=1e-5)
    assert opposite.positive_similarity == pytest.approx(-1, abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01])
def test_rows_equal_up_to_rounding_and_rows_of_zeros_are_a_complete_collapse(temperature):
    scales = np.linspace(0.1, 3, 6)[:, None]
    for rows in (np.ones((6, 5)), scales * RNG.normal(size=5), np.zeros((6, 5)), np.ones((2, 3))):
        assert kind(rows.astype(np.float32), temperature=temperature) == "complete collapse"


def test_rows_nearly_equal_are_a_complete_collapse():
    rows = 1 + 0.02 * RNG.normal(size=(64, 32))
    assert report(rows.astype(np.float32)).verdict.startswith("complete collapse")


def test_one_collapsed_tower_is_named():
    z = jnp.asarray(RNG.normal(size=(16, 8)), jnp.float32)
    assert "all rows of z2 point" in report(z, jnp.ones_like(z)).verdict
    assert "all rows of z1 point" in report(jnp.ones_like(z), z, temperature=0.01).verdict


@pytest.mark.parametrize("dim", [4, 8, 256])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_rows_far_from_the_origin_are_a_narrow_cone_though_all_pairs_are_found(dim, temperature):
    for distance in (5, 15):
        z = np.abs(RNG.normal(size=(64, dim))) + distance
        result = report(z, temperature=temperature)
        assert result.accuracy == 1
        assert result.verdict.startswith("narrow cone")


@pytest.mark.parametrize(
    ("cosine", "temperature", "relative"), [(0.988, 1.0, "1.00"), (0.968, 0.4, "0.98")]
)
def test_a_narrow_cone_says_mean_cosine_loss_and_what_helps(cosine, temperature, relative):
    z = cone(cosine, (64, 256))
    verdict = report(z, temperature=temperature).verdict
    assert verdict.startswith("narrow cone: different rows of z1 and of z2 have a mean cosine of")
    assert f"of {float(diagnostics.mean_cosine(z)):.3f}" in verdict
    assert f"the loss is {relative} of chance" in verdict
    assert "100 % find their pair" in verdict
    for help in ("temperature", "centred", "regularizer"):
        assert help in verdict


def test_what_a_narrow_cone_is_depends_on_the_temperature_as_the_loss_does():
    """Centred rows at temperature t / (1 - m) have the loss of rows of mean cosine m at t."""
    z = cone(0.9, (64, 256))
    u = z / np.linalg.norm(z, axis=1, keepdims=True)
    cosines = u @ u.T
    mean = cosines[~np.eye(64, dtype=bool)].mean()
    for temperature in (1.0, 0.2, 0.05):
        stretched = (cosines - mean) / (1 - mean) / (temperature / (1 - mean))
        rows = np.log(np.exp(stretched - np.diagonal(stretched)[:, None]).sum(axis=1))
        assert report(z, temperature=temperature).loss == pytest.approx(rows.mean(), rel=1e-3)
    assert kind(cone(0.93, (64, 256))) == "narrow cone"
    assert kind(cone(0.93, (64, 256)), temperature=0.02) == "healthy"
    assert kind(cone(0.75, (64, 256))) == "healthy"


@pytest.mark.parametrize("seed", range(5))
def test_no_loss_is_below_what_the_mean_cosines_allow(seed):
    """The bound from which the grades are derived, for sides of different width."""
    rng = np.random.default_rng(seed)
    n, temperature = rng.integers(2, 40), 10 ** rng.uniform(-2, 0)
    z1 = cone(rng.uniform(0.3, 0.99), (n, 16), seed)
    z2 = 10 ** rng.uniform(-3, 1) * rng.normal(size=(n, 16)) + z1
    openings = []
    for z in (z1, z2):
        u = z / np.linalg.norm(z, axis=1, keepdims=True)
        openings.append(1 - np.mean([u[i] @ u[j] for i in range(n) for j in range(n) if i != j]))
    gap = math.sqrt(math.prod(openings))
    lowest = math.log(1 + (n - 1) * math.exp(-gap / temperature))
    loss = jax.jit(losses.clip_loss)(z1, z2, temperature=temperature)
    assert float(loss) >= lowest * (1 - 1e-4) - 1e-6


def test_pairs_in_a_narrow_cone_that_are_not_found_are_told():
    verdict = report(cone(0.95, (64, 64)), cone(0.95, (64, 64), seed=1)).verdict
    assert verdict.startswith("narrow cone")
    assert "no more than by luck" in verdict


@pytest.mark.parametrize(("directions", "expected"), [(6, "dimensional collapse"), (12, "healthy")])
def test_few_of_many_directions(directions, expected):
    """Of 128: scenes of a few attributes take 11, and nearly all pairs are found."""
    z = np.random.default_rng(0).normal(size=(400, 128))
    z[:, directions:] = 0
    assert kind(z, temperature=0.1) == expected


def test_rows_along_a_line_are_a_dimensional_collapse():
    line = np.outer(RNG.normal(size=64), np.eye(32)[0]) + 1e-3 * RNG.normal(size=(64, 32))
    result = report(line.astype(np.float32))
    assert result.verdict.startswith("dimensional collapse")
    assert result.effective_rank < 3
    assert kind(np.outer([-1.0, 1, 2, -3], np.ones(768))) == "dimensional collapse"


# What cannot be measured.


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_no_collapse(value):
    z = RNG.normal(size=(64, 16)).astype(np.float32)
    bad = z.copy()
    bad[[5, 60], 3] = value
    for pair in ((bad, z), (jnp.asarray(bad, jnp.bfloat16), z)):
        result = report(*pair)
        assert result.verdict == (
            "not finite: 2 of 64 rows of z1 hold NaN or infinity, the first is row 5"
        )
        assert math.isnan(result.loss)
        assert math.isnan(result.accuracy)
        assert math.isnan(result.effective_rank)
        assert result.chance == math.log(64)
        assert str(result).splitlines()[0] == result.verdict


def test_rows_of_any_scale():
    z = RNG.normal(size=(16, 4))
    for scale in (1e-300, 1e-30, 1e30, 1e300):
        assert report(scale * z).loss == pytest.approx(report(z).loss, rel=1e-5)


# Numbers.


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
    with pytest.raises(ValueError, match=r"at least one row and one feature, got shape \(0, 3\)"):
        report(jnp.ones((0, 3)))
    for temperature in (0, -1.0, math.nan, math.inf, 1e-50):
        with pytest.raises(ValueError, match="temperature must be a positive number"):
            report(jnp.ones((4, 3)), temperature=temperature)
    with pytest.raises(ValueError, match=r"call it outside of jax\.jit"):
        jax.jit(lambda z: report(z).loss)(jnp.ones((4, 3)))
