"""Fifty steps with each loss make a tiny encoder of the digits better than it was untrained.

The correlation losses are not held to it: six outputs and fifty steps are too few for them (they were
tried, and did not improve kNN here).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from jaxcon import losses
from jaxcon.evaluation.knn import knn_accuracy
from tests.marks import exhaustive_unless

STEPS, BATCH, WIDTHS = 50, 256, (64, 64, 6)
PAIRS = {
    name: getattr(losses, name)
    for name in (
        *("ntxent_loss", "dcl_loss", "hard_negative_loss", "clip_loss", "info_nce_loss"),
        *("npairs_loss", "siglip_loss", "spectral_contrastive_loss"),
    )
}
LABELLED = {
    name: getattr(losses, name)
    for name in ("supcon_loss", "triplet_loss", "multi_similarity_loss", "circle_loss")
}


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    return (images / 16 - 0.3).astype(np.float32), labels.astype(np.int32)


def untrained():
    keys = jax.random.split(jax.random.key(0), 2)
    return [
        jax.random.normal(key, (a, b)) * np.sqrt(2 / a)
        for key, a, b in zip(keys, WIDTHS, WIDTHS[1:], strict=False)
    ]


def encode(params, images):
    return jax.nn.relu(images @ params[0]) @ params[1]


def shifted(key, images):
    """Views: a shift by up to one pixel, and noise."""
    shift, noise = jax.random.split(key)
    by = jax.random.randint(shift, (len(images), 2), -1, 2)
    rolled = jax.vmap(lambda x, s: jnp.roll(x.reshape(8, 8), s, (0, 1)).reshape(64))(images, by)
    return rolled + 0.1 * jax.random.normal(noise, images.shape)


def knn(params, digits):
    features = np.asarray(encode(params, digits[0]))
    return knn_accuracy(features[:1200], digits[1][:1200], features[1200:], digits[1][1200:])


def train(objective, digits):
    """Parameters after fifty steps of Adam on `objective(params, images, labels, key)`."""
    images, labels = (jnp.asarray(a[:1200]) for a in digits)
    optimizer = optax.adam(3e-3)

    def step(carry, number):
        params, state = carry
        rows, key = jax.random.split(jax.random.fold_in(jax.random.key(1), number))
        rows = jax.random.choice(rows, len(images), (BATCH,), replace=False)
        gradient = jax.grad(objective)(params, images[rows], labels[rows], key)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    params = untrained()
    carry = (params, optimizer.init(params))
    return jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(STEPS))[0][0])(carry)


@pytest.mark.parametrize("name", exhaustive_unless(lambda name: name == "ntxent_loss", PAIRS))
def test_pairs_of_views_teach(name, digits):
    def objective(params, images, labels, key):
        views = (encode(params, shifted(k, images)) for k in jax.random.split(key))
        return PAIRS[name](*views)

    assert knn(train(objective, digits), digits) > knn(untrained(), digits) + 0.02


@pytest.mark.parametrize("name", exhaustive_unless(lambda name: name == "supcon_loss", LABELLED))
def test_labels_teach(name, digits):
    def objective(params, images, labels, key):
        return LABELLED[name](encode(params, shifted(key, images)), labels)

    assert knn(train(objective, digits), digits) > knn(untrained(), digits) + 0.02


@pytest.mark.parametrize(
    ("name", "log_std"), [("gaussian_clip_loss", 0.0), ("csd_loss", -1.0)], ids=lambda v: str(v)
)
def test_pairs_with_a_deviation_teach(name, log_std, digits):
    def objective(params, images, labels, key):
        views = (0.3 * encode(params, shifted(k, images)) for k in jax.random.split(key))
        sure = jnp.full(len(images), log_std)  # and norms about 1: where the losses are to start
        return getattr(losses, name)(*views, sure, sure)

    assert knn(train(objective, digits), digits) > knn(untrained(), digits) + 0.02
