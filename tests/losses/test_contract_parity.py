"""Values and gradients of other implementations; `reference/README.md` says which.

Where an entry and the paper disagree the paper wins, and a test here says so.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcon import losses
from tests.losses.calls import gap, precision

_HERE = pathlib.Path(__file__).parent / "reference"
REFERENCE = {name: dict(np.load(_HERE / f"losses_{name}.npz")) for name in "ab"}
TOLERANCE = {np.float64: 1e-6, np.float32: 1e-4}


def pair(name, **settings):
    """A call of the loss of that name on (z1, z2)."""
    return ("z1", "z2"), lambda z1, z2: getattr(losses, name)(z1, z2, **settings)


def labelled(name, **settings):
    """A call of the loss of that name on (z1, labels)."""
    return ("z1",), lambda z1, labels: getattr(losses, name)(z1, labels, **settings)


def two_views(z1, z2, labels):
    both = jnp.concatenate([z1, z2])
    return losses.supcon_loss(both, jnp.concatenate([labels, labels]), temperature=0.1)


def hypersphere(z1, z2):
    spread = losses.uniformity_loss(z1, t=1.0) + losses.uniformity_loss(z2, t=1.0)
    return losses.alignment_loss(z1, z2) + spread / 2


GAUSSIANS = ("z1", "z2", "log_std1", "log_std2")

# Entry: (inputs to differentiate, the call that it is).
ENTRIES = {
    "npairs_cosine": pair("npairs_loss"),
    "sample_correlation": pair("sample_correlation_loss"),
    "barlow_twins": pair("barlow_twins_loss"),
    "lightly/barlow": pair("barlow_twins_loss"),
    "lightly/vicreg": pair("vicreg_loss"),
    "uncertainty_clip": (GAUSSIANS, lambda *args: losses.gaussian_clip_loss(*args)),
    "ntxent_t1.0": pair("ntxent_loss", temperature=1.0),
    "ntxent_t0.5": pair("ntxent_loss", temperature=0.5),
    "ntxent_t0.1": pair("ntxent_loss", temperature=0.1),
    "lightly/ntxent_t0.5": pair("ntxent_loss", temperature=0.5),
    "lightly/dcl_t0.1": pair("dcl_loss", temperature=0.1),
    "lightly/dclw_t0.1_s0.5": pair("dcl_loss", temperature=0.1, sigma=0.5),
    "pml/supcon_t0.1": labelled("supcon_loss", temperature=0.1),
    "pml/supcon_two_views_t0.1": (("z1", "z2"), two_views),
    "open_clip/clip_s14.3": (
        ("z1", "z2", "s"),
        lambda z1, z2, s: losses.clip_loss(z1, z2, temperature=1 / s),
    ),
    "open_clip/siglip_s10_b-10": (
        ("z1", "z2", "s", "b"),
        lambda z1, z2, s, b: losses.siglip_loss(z1, z2, temperature=1 / s, bias=b),
    ),
    "pml/triplet_m0.2": labelled("triplet_loss", margin=0.2),
    "pml/multi_similarity": labelled("multi_similarity_loss", alpha=2.0, beta=50.0, base=0.5),
    "pml/circle_m0.4_g80": labelled("circle_loss", margin=0.4, gamma=80.0),
    "lightly/koleo": (("z1",), lambda z1: losses.koleo_loss(z1)),
    "lightly/hypersphere": (("z1", "z2"), hypersphere),
}
SCALARS = {
    "open_clip/clip_s14.3": {"s": 14.3},
    "open_clip/siglip_s10_b-10": {"s": 10.0, "b": -10.0},
}
ELSEWHERE = {
    "collapse_all_equal",
    "collapse_all_opposite",
    "collapse_distinct",
    "lightly/negative_cosine",
}
WITHOUT_A_NAME = {"pml/ntxent_t0.07_labels", "pml/contrastive", "lightly/tico"}
INPUTS = {"z1", "z2", "labels", "log_std1", "log_std2", "collapse_random"}


@functools.cache
def call(entry):
    """Value and gradients of the entry's call on (inputs to differentiate, labels or ())."""
    names, function = ENTRIES[entry]
    return jax.jit(
        jax.value_and_grad(lambda inputs, rest: function(*(inputs[n] for n in names), *rest))
    )


def computed(entry, data, dtype):
    names, function = ENTRIES[entry]
    source = data | SCALARS.get(entry, {})
    labels = "labels" in function.__code__.co_varnames
    with precision(dtype):
        inputs = {name: jnp.asarray(source[name], dtype) for name in names}
        return call(entry)(inputs, (jnp.asarray(data["labels"]),) if labels else ())


def test_every_entry_is_accounted_for():
    for data in REFERENCE.values():
        entries = {name for name in data if "/grad_" not in name} - INPUTS
        assert entries == set(ENTRIES) | ELSEWHERE | WITHOUT_A_NAME


@pytest.mark.parametrize(
    ("file", "dtype"),
    [
        ("b", np.float64),
        *(
            pytest.param(*rest, marks=pytest.mark.exhaustive)
            for rest in (("a", np.float64), ("a", np.float32), ("b", np.float32))
        ),
    ],
)
@pytest.mark.parametrize("entry", ENTRIES)
def test_value_and_gradients(entry, file, dtype):
    data = REFERENCE[file]
    value, grads = computed(entry, data, dtype)
    assert value.dtype == dtype
    # A value near 0 (decoupled losses) is a difference of terms of about 1 / temperature.
    rounding = 16 * np.finfo(dtype).eps
    np.testing.assert_allclose(value, data[entry], rtol=TOLERANCE[dtype], atol=rounding)
    assert {name.split("/grad_")[1] for name in data if name.startswith(f"{entry}/grad_")} == set(
        grads
    )
    for name, grad in grads.items():
        assert gap(grad, data[f"{entry}/grad_{name}"]) < TOLERANCE[dtype], name


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_collapse_at_temperature_1(dtype):
    """Seven pairs of equal rows score ln 7, and seven distinct directions hardly less."""
    data = REFERENCE["a"]
    with precision(dtype):
        ones = jnp.ones((7, 768), dtype)
        distinct = jnp.asarray(data["collapse_random"], dtype)
        loss = jax.jit(losses.npairs_loss)
        for got, entry, expected in [
            (loss(ones, ones), "collapse_all_equal", np.log(7)),
            (loss(ones, -ones), "collapse_all_opposite", np.log(7)),
            (loss(distinct, distinct), "collapse_distinct", 1.7334482),
        ]:
            assert gap(data[entry], expected) < 1e-7
            assert gap(got, data[entry]) < (1e-6 if dtype is np.float64 else 1e-5)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("file", REFERENCE)
def test_cosine_regression_is_twice_lightlys_negative_cosine_but_for_the_targets(file, dtype):
    """2 - 2 cos against -cos. lightly leaves the stop-gradient of the paper to its caller."""
    data = REFERENCE[file]
    with precision(dtype):
        z1, z2 = (jnp.asarray(data[name], dtype) for name in ("z1", "z2"))
        step = jax.value_and_grad(losses.cosine_regression_loss, argnums=(0, 1))
        value, (grad, targets) = jax.jit(step)(z1, z2)
    entry = "lightly/negative_cosine"
    assert gap(value, 2 + 2 * data[entry]) < TOLERANCE[dtype]
    assert gap(grad, 2 * data[f"{entry}/grad_z1"]) < TOLERANCE[dtype]
    assert not np.any(targets)
    assert np.any(data[f"{entry}/grad_z2"])


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_optax_ntxent_of_two_views(temperature):
    data = REFERENCE["b"]
    with precision(np.float64):
        views = tuple(jnp.asarray(data[name]) for name in ("z1", "z2"))
        index = jnp.tile(jnp.arange(len(views[0])), 2)
        theirs = jax.value_and_grad(
            lambda z: optax.losses.ntxent(jnp.concatenate(z), index, temperature)
        )
        ours = jax.value_and_grad(lambda z: losses.ntxent_loss(*z, temperature=temperature))
        theirs, ours = jax.jit(lambda z: (theirs(z), ours(z)))(views)
    assert gap(ours, theirs) < TOLERANCE[np.float64]
