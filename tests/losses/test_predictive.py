"""Cosine regression against its formula, a reference implementation, devices and extremes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon import losses
from tests.losses import family
from tests.losses import formulas_margin as formulas
from tests.losses.family import Form

FORM = Form(
    "cosine_regression",
    losses.cosine_regression_loss,
    formulas.cosine_regression,
    args=("predictions", "targets"),
)


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_value_and_gradient_are_the_formula(masked):
    family.check_formula(FORM, masked)


def test_nan_is_visible():
    family.check_nan_is_visible(FORM)


@pytest.mark.parametrize("dtype", family.DTYPES)
def test_extremes_are_finite(dtype):
    family.check_extremes(FORM, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["vmap", "pmap", "shard_map"])
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_any_number_of_devices(mode, devices):
    family.check_devices(FORM, mode, devices)


@pytest.mark.parametrize("file", ["a", "b"])
def test_lightly_agrees_but_for_the_gradient_into_the_targets(file):
    data = family.reference(file)
    with jax.enable_x64(True):
        value, (grad, into_targets) = jax.value_and_grad(FORM.loss, argnums=(0, 1))(
            data["z1"], data["z2"]
        )
    np.testing.assert_allclose(value, 2 + 2 * data["lightly/negative_cosine"], rtol=1e-12)
    assert family.gap([grad], [2 * data["lightly/negative_cosine/grad_z1"]]) < 1e-12
    # Lightly leaves it to the caller to detach the targets; both papers hold them constant.
    assert np.linalg.norm(data["lightly/negative_cosine/grad_z2"]) > 0
    assert not into_targets.any()


def test_nearly_aligned_rows_keep_their_digits():
    angle = 1e-4  # 2 - 2 cos is 1e-8, less than the rounding of cos in float32
    p, t = jnp.array([[1.0, 0.0]]), jnp.array([[jnp.cos(angle), jnp.sin(angle)]])
    np.testing.assert_allclose(FORM.loss(p, t), angle**2, rtol=1e-3)


def test_a_zero_row_has_cosine_zero():
    p, t = jnp.array([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0]]), jnp.array([[1.0, 2.0], [0, 0], [0, 0]])
    np.testing.assert_allclose(FORM.loss(p, t, reduce_fn=None), 2.0)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="targets must have the shape of predictions"):
        FORM.loss(jnp.ones((4, 2)), jnp.ones((3, 2)))
