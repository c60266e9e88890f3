"""The losses of the study, and its optimizer."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from experiments.pairs.objectives import Outputs
from experiments.running.process import jit_once
from experiments.uncertainty_study.losses import make_objective
from experiments.uncertainty_study.runs import times_state
from jaxcon.encoders.dual import Embedded
from jaxcon.losses import clip_loss, csd_loss
from jaxcon.training.devices import make_mesh
from jaxcon.training.optimizers import adamw, warmup_cosine


def embedded(seed=0, n=6, dim=5):
    rng = np.random.default_rng(seed)
    z1, z2 = rng.normal(size=(2, n, dim)).astype(np.float32)
    k, l = rng.uniform(-0.5, 0.3, size=(2, n)).astype(np.float32)
    return Embedded(z1, k), Embedded(z2, l)


def loss_of(name, outputs):
    """The loss over two devices that share the rows; its scalars are on both."""
    loss = make_objective(name).loss
    mesh = make_mesh(jax.devices()[:2])
    specs = (PartitionSpec("batch"), PartitionSpec("batch"), PartitionSpec())
    shared = jax.shard_map(
        lambda *parts: loss(Outputs(*parts)), mesh=mesh, in_specs=specs, out_specs=PartitionSpec()
    )
    return float(jit_once(shared)(outputs.image, outputs.text, dict(outputs.scalars)))


def cross_entropy(logits):
    return np.mean([np.log(np.exp(row).sum()) - row[i] for i, row in enumerate(logits)])


def test_a_shared_deviation_is_a_temperature():
    image, text = embedded()
    squared = ((image.z[:, None] - text.z[None]) ** 2).sum(axis=2)
    logits = -squared / math.exp(2 * 0.3)
    expected = (cross_entropy(logits) + cross_entropy(logits.T)) / 2
    found = loss_of("gaussian-shared", Outputs(image, text, {"log_std": 0.3}))
    assert found == pytest.approx(expected, rel=1e-5)
    scores = make_objective("gaussian-shared").scores(image, text)
    np.testing.assert_allclose(scores, -squared, rtol=1e-4, atol=1e-5)


def test_exact_scores_are_what_the_exact_loss_compares():
    image, text = embedded()
    objective = make_objective("gaussian-exact")
    rows = np.asarray(objective.scores(image, text))
    columns = np.asarray(objective.scores(text, image))
    squared = ((image.z[0] - text.z[3]) ** 2).sum()
    assert rows[0, 3] == pytest.approx(
        -5 * text.log_std[3] - squared / (2 * math.exp(2 * text.log_std[3])), rel=1e-4
    )
    expected = (cross_entropy(rows) + cross_entropy(columns)) / 2
    assert loss_of("gaussian-exact", Outputs(image, text, {})) == pytest.approx(expected, rel=1e-4)


def test_the_added_term_is_that_of_clip():
    image, text = embedded()
    scalars = {"scale": 4.0, "shift": 3.0, "temperature": 0.2}

    @jit_once
    def added(image, text):
        deviating = (image.z, text.z, image.log_std, text.log_std)
        return 6 * csd_loss(*deviating, scale=4.0, shift=3.0) + clip_loss(
            image.z, text.z, temperature=0.2
        )

    expected = float(added(image, text))
    found = loss_of("csd-clip", Outputs(image, text, scalars))
    assert found == pytest.approx(expected, rel=1e-5)
    assert make_objective("csd-clip").chance(8) == pytest.approx(
        8 * math.log(8) - 7 * math.log(7) + math.log(8)
    )


@pytest.mark.parametrize("name", ["gaussian-shared", "gaussian-exact", "csd-clip"])
def test_added_losses_find_pairs_that_match(name):
    objective = make_objective(name)
    z = np.random.default_rng(0).normal(size=(16, 32)).astype(np.float32)
    log_std = np.full(16, objective.log_std or 0.0, np.float32)
    scores = np.asarray(objective.scores(Embedded(z, log_std), Embedded(z, log_std)))
    np.testing.assert_array_equal(scores.argmax(axis=1), np.arange(16))


def test_the_learning_rate_in_the_state_is_that_of_the_optimizer():
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    gradients = jax.tree.map(lambda leaf: 0.3 * leaf, params)
    settings = {"warmup_steps": 2, "total_steps": 5}
    plain = adamw(warmup_cosine(0.02, **settings), weight_decay=0.1)
    unit = adamw(warmup_cosine(1.0, **settings), weight_decay=0.1)
    scaled = optax.chain(unit, times_state())
    one, two = plain.init(params), scaled.init(params)
    two = (two[0], jnp.float32(0.02))
    update_plain, update_scaled = jit_once(plain.update), jit_once(scaled.update)
    for _ in range(3):
        expected, one = update_plain(gradients, one, params)
        found, two = update_scaled(gradients, two, params)
        for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(leaf, other, rtol=1e-5)


# Pieces.
