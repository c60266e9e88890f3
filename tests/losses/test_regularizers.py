"""The regularizers against loops, reference implementations, devices and extremes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon import losses
from tests.losses import family
from tests.losses import formulas_margin as formulas
from tests.losses.family import Form

PAIRS = {"args": ("z1", "z2")}
FORMS = [
    Form("alignment", losses.alignment_loss, formulas.alignment, **PAIRS),
    Form(
        "alignment alpha 1",
        functools.partial(losses.alignment_loss, alpha=1.0),
        functools.partial(formulas.alignment, alpha=1.0),
        **PAIRS,
    ),
    Form("uniformity", losses.uniformity_loss, formulas.uniformity, rows=("where",)),
    Form(
        "uniformity t 0.5",
        functools.partial(losses.uniformity_loss, t=0.5),
        functools.partial(formulas.uniformity, t=0.5),
        rows=("where",),
    ),
    Form("koleo", losses.koleo_loss, formulas.koleo),
    Form("variance", losses.variance_loss, formulas.variance, rows=("where",), normalized=False),
]
each_form = pytest.mark.parametrize("form", FORMS, ids=family.ids_of(FORMS))


@each_form
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_value_and_gradient_are_the_formulas(form, masked):
    family.check_formula(form, masked)


@each_form
def test_nan_is_visible(form):
    family.check_nan_is_visible(form)


@each_form
@pytest.mark.parametrize("dtype", family.DTYPES)
def test_extremes_are_finite(form, dtype):
    family.check_extremes(form, dtype)


@pytest.mark.slow
@each_form
@pytest.mark.parametrize("mode", ["vmap", "pmap", "shard_map"])
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_any_number_of_devices(form, mode, devices):
    family.check_devices(form, mode, devices)


@pytest.mark.parametrize("file", ["a", "b"])
def test_lightly_hypersphere_agrees(file):
    def loss(z1, z2):
        spread = losses.uniformity_loss(z1, t=1.0) + losses.uniformity_loss(z2, t=1.0)
        return losses.alignment_loss(z1, z2) + spread / 2

    data = family.reference(file)
    with jax.enable_x64(True):
        value, grads = jax.value_and_grad(loss, argnums=(0, 1))(data["z1"], data["z2"])
    np.testing.assert_allclose(value, data["lightly/hypersphere"], rtol=1e-12)
    want = [data["lightly/hypersphere/grad_z1"], data["lightly/hypersphere/grad_z2"]]
    assert family.gap(grads, want) < 1e-12


@pytest.mark.parametrize("file", ["a", "b"])
def test_lightly_koleo_agrees(file):
    data = family.reference(file)
    with jax.enable_x64(True):
        value, grad = jax.value_and_grad(losses.koleo_loss)(data["z1"])
    # To 1e-7: lightly adds its 1e-8 to every coordinate of a difference as well.
    np.testing.assert_allclose(value, data["lightly/koleo"], rtol=1e-6)
    assert family.gap([grad], [data["lightly/koleo/grad_z1"]]) < 1e-6


def test_the_hinge_forbids_collapse_and_rests_when_spread():
    z = np.random.default_rng(0).normal(size=(64, 4))
    np.testing.assert_allclose(losses.variance_loss(np.ones((8, 4), np.float32)), 0.99, rtol=1e-6)
    assert losses.variance_loss(10 * z) == 0


@pytest.mark.parametrize("loss", [losses.uniformity_loss, losses.koleo_loss])
def test_memory_is_a_few_matrices_of_pairs(loss):
    n = 512
    z = jax.ShapeDtypeStruct((n, 16), jnp.float32)
    memory = jax.jit(jax.value_and_grad(loss)).lower(z).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 6 * 4 * n * n


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda z: losses.alignment_loss(z, z[:2]), "z2 must have the shape of z1"),
        (lambda z: losses.alignment_loss(z, z, alpha=0.0), "alpha must be a positive number"),
        (lambda z: losses.uniformity_loss(z, t=-1.0), "t must be a positive number"),
        (lambda z: losses.koleo_loss(z[0]), r"z must be \[batch, \*features\]"),
        (lambda z: losses.variance_loss(z.astype(int)), "z must be of a floating-point dtype"),
    ],
)
def test_wrong_input_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call(jnp.ones((4, 2)))
