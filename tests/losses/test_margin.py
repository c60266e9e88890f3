"""The margin family against loops, reference implementations, masks, devices and extremes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon import losses
from tests.losses import family
from tests.losses import formulas_margin as formulas
from tests.losses.family import Form

LABELLED = {"labelled": True, "rows": ("where", "weights", "ids")}
LOOSE = {"alpha": 1.5, "beta": 8.0, "base": 0.3}
FORMS = [
    Form("triplet", losses.triplet_loss, formulas.triplet, **LABELLED),
    Form(
        "triplet semi-hard",
        functools.partial(losses.triplet_loss, mining=losses.semi_hard, margin=0.5),
        functools.partial(formulas.triplet, mined=formulas.semi_hard_triplets, margin=0.5),
        **LABELLED,
    ),
    Form(
        "triplet hardest",
        functools.partial(losses.triplet_loss, mining=losses.hardest),
        functools.partial(formulas.triplet, mined=formulas.hardest_triplet),
        **LABELLED,
    ),
    Form("multi_similarity", losses.multi_similarity_loss, formulas.multi_similarity, **LABELLED),
    Form(
        "multi_similarity loose",
        functools.partial(losses.multi_similarity_loss, **LOOSE),
        functools.partial(formulas.multi_similarity, **LOOSE),
        **LABELLED,
    ),
    Form("circle", losses.circle_loss, formulas.circle, **LABELLED),
    Form(
        "circle soft",
        functools.partial(losses.circle_loss, gamma=4.0, margin=0.25),
        functools.partial(formulas.circle, gamma=4.0, margin=0.25),
        **LABELLED,
    ),
    Form(
        "spectral",
        losses.spectral_contrastive_loss,
        formulas.spectral,
        args=("z1", "z2"),
        rows=("where", "weights", "ids"),
        normalized=False,
    ),
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
@pytest.mark.parametrize(
    ("entry", "loss"),
    [
        # No anchor here lacks a positive or a negative: with one, pytorch-metric-learning's mean over
        # non-zero losses and the papers' mean over anchors would differ.
        ("pml/triplet_m0.2", losses.triplet_loss),
        ("pml/multi_similarity", losses.multi_similarity_loss),
        ("pml/circle_m0.4_g80", losses.circle_loss),
    ],
)
def test_pytorch_metric_learning_agrees(file, entry, loss):
    data = family.reference(file)
    with jax.enable_x64(True):
        value, grad = jax.value_and_grad(loss)(data["z1"], data["labels"])
    np.testing.assert_allclose(value, data[entry], rtol=1e-12)
    assert family.gap([grad], [data[f"{entry}/grad_z1"]]) < 1e-12


@pytest.mark.parametrize("form", FORMS[:3], ids=family.ids_of(FORMS[:3]))
def test_triplet_values_per_anchor_average_by_the_anchors_triplets(form):
    (z, labels), rows = family.batch(form, seed=8)
    kept = rows["where"]
    values, counts = form.formula(z[kept], labels[kept], ids=rows["ids"][kept])
    with jax.enable_x64(True):
        got = form.loss(z, labels, **rows, reduce_fn=None)
        total = form.loss(z, labels, **rows, reduce_fn=jnp.sum)
        mean = form.loss(z, labels, **rows)
    assert not got[~kept].any()
    np.testing.assert_allclose(got[kept], values, rtol=1e-11)
    w = rows["weights"][kept]
    np.testing.assert_allclose(total, np.sum(w * values), rtol=1e-11)
    np.testing.assert_allclose(mean, np.average(values, weights=w * counts), rtol=1e-11)


@pytest.mark.parametrize("form", FORMS[3:], ids=family.ids_of(FORMS[3:]))
def test_values_per_anchor(form):
    arrays, rows = family.batch(form, seed=9)
    kept = rows["where"]
    values, valid = form.formula(*(a[kept] for a in arrays), ids=rows["ids"][kept])
    with jax.enable_x64(True):
        got = form.loss(*arrays, **rows, reduce_fn=None)
    assert not got[~kept].any()
    np.testing.assert_allclose(got[kept], np.where(valid, values, 0), rtol=1e-10, atol=1e-12)


def test_circle_leaves_out_anchors_without_a_positive_or_without_a_negative():
    z = np.random.default_rng(0).normal(size=(5, 3))
    values = losses.circle_loss(z, jnp.array([0, 0, 0, 1, 2]), reduce_fn=None)
    assert (values[:3] > 0).all()
    assert not values[3:].any()
    np.testing.assert_allclose(
        losses.circle_loss(z, jnp.array([0, 0, 0, 1, 2])), values[:3].mean(), rtol=1e-6
    )


@pytest.mark.parametrize("margin", [0.0, 0.2])
def test_equal_distances_are_no_semi_hard_triplets(margin):
    z = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [-1.0, 0.0]])
    labels = jnp.array([0, 0, 1, 2])
    got = losses.triplet_loss(z, labels, margin=margin, mining=losses.semi_hard)
    d = [[np.linalg.norm(a - b) for b in np.array(z)] for a in np.array(z)]
    chosen = [
        d[i][p] - d[i][n] + margin
        for i in range(4)
        for p, n in formulas.semi_hard_triplets(
            d[i], *formulas.relations(labels, range(4), i), margin
        )
    ]
    np.testing.assert_allclose(got, np.mean(chosen) if chosen else 0.0, rtol=1e-6)


def test_equally_hard_candidates_share_the_gradient():
    z = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8], [0.8, 0.6], [0.8, -0.6]])
    labels = jnp.array([0, 0, 0, 1, 1])
    weights = jnp.array([1.0, 0, 0, 0, 0])

    def loss(z):
        return losses.triplet_loss(z, labels, mining=losses.hardest, weights=weights)

    grad = jax.grad(loss)(z)
    mirrored = grad[jnp.array([0, 2, 1, 4, 3])] * jnp.array([1.0, -1.0])
    np.testing.assert_allclose(grad, mirrored, atol=1e-6)
    assert jnp.abs(grad[1:]).sum(axis=1).min() > 0.01


def test_mining_may_be_a_function_of_ones_own():
    def nearest_positive(distances, positives, negatives, margin):
        near = jnp.min(distances, initial=jnp.inf, where=positives)
        return losses.all_triplets(distances, positives & (distances == near), negatives, margin)

    def loop(d, positives, negatives, margin):
        return [(min(positives, key=lambda p: d[p]), n) for n in negatives] if positives else []

    z, labels = (a for a in family.batch(FORMS[0], seed=10)[0])
    values, counts = formulas.triplet(z, labels, ids=np.arange(len(z)), mined=loop)
    got = losses.triplet_loss(z, labels, mining=nearest_positive)
    np.testing.assert_allclose(got, np.average(values, weights=counts), rtol=1e-5)


@pytest.mark.parametrize("loss", [f.loss for f in FORMS[:4]] + [losses.circle_loss])
def test_memory_is_a_few_matrices_of_pairs(loss):
    n, dim = 512, 16
    z = jax.ShapeDtypeStruct((n, dim), jnp.float32)
    labels = jax.ShapeDtypeStruct((n,), jnp.int32)
    memory = jax.jit(jax.value_and_grad(loss)).lower(z, labels).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 10 * 4 * n * n


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda z, y: losses.triplet_loss(z, y, mining="hard"), "mining must be a function"),
        (lambda z, y: losses.triplet_loss(z, y, margin=-0.1), "margin must be a number >= 0"),
        (lambda z, y: losses.triplet_loss(z, y.astype(float)), "labels must be of integer dtype"),
        (lambda z, y: losses.triplet_loss(z, y[:3]), r"labels must have shape \(4,\)"),
        (lambda z, y: losses.multi_similarity_loss(z, y, alpha=0.0), "alpha must be a positive"),
        (lambda z, y: losses.multi_similarity_loss(z, y, beta=-1.0), "beta must be a positive"),
        (lambda z, y: losses.multi_similarity_loss(z, y, base=jnp.nan), "base must be finite"),
        (lambda z, y: losses.circle_loss(z, y, margin=1.5), r"margin must be in \[0, 1\]"),
        (lambda z, y: losses.circle_loss(z, y, gamma=0.0), "gamma must be a positive"),
        (lambda z, y: losses.spectral_contrastive_loss(z, z[:3]), "z2 must have the shape of z1"),
        (lambda z, y: losses.spectral_contrastive_loss(z, z, axis_name="b"), "not bound"),
    ],
)
def test_wrong_input_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call(jnp.ones((4, 2)), jnp.arange(4) // 2)
