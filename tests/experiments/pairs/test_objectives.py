"""The losses of image-text pairs: chance, matching, scores, gradients, where they start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.pairs.model import DualEncoder, make_loss
from experiments.pairs.objectives import Outputs, make_objective
from experiments.pairs.page import loss_notes
from experiments.running.process import jit_once
from jaxcon.encoders import MLP, TextTransformer
from jaxcon.encoders.dual import Embedded, Side
from jaxcon.losses import npairs_loss
from jaxcon.training.workdir import Workdir
from tests.marks import exhaustive_unless

LOSSES = ("clip", "siglip", "npairs", "gaussian", "csd")
each = pytest.mark.parametrize("name", LOSSES)
# Those with a learned temperature and with deviations stand for the others by default.
two_by_default = pytest.mark.parametrize(
    "name", exhaustive_unless(lambda name: name in ("clip", "gaussian"), LOSSES)
)


def loss_of(objective, outputs):
    """The loss over an axis "batch" of one device."""
    parts = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], outputs)
    return float(jax.jit(jax.vmap(objective.loss, axis_name="batch"))(parts)[0])


def sides(objective, z1, z2, log_std=None):
    log_std = objective.log_std if log_std is None else log_std
    columns = [None if objective.log_std is None else np.full(len(z), log_std) for z in (z1, z2)]
    return Embedded(z1, columns[0]), Embedded(z2, columns[1])


@two_by_default
def test_the_loss_of_equal_embeddings_is_what_is_called_chance(name):
    objective = make_objective(name, None)
    z = np.ones((16, 8), np.float32)
    values = []
    for offset in np.linspace(-20, 20, 4001):  # the best constant logit, found by trying
        scalars = dict(objective.scalars)
        if "bias" in scalars:
            scalars["bias"] = offset
        if "shift" in scalars:
            scalars["shift"] = offset
        values.append(Outputs(*sides(objective, z, z), scalars))
    outputs = jax.tree.map(lambda *leaves: np.stack(leaves), *values)
    losses = jax.jit(
        jax.vmap(
            lambda o: jax.vmap(objective.loss, axis_name="batch")(
                jax.tree.map(lambda leaf: leaf[None], o)
            )[0]
        )
    )(outputs)
    assert float(losses.min()) == pytest.approx(objective.chance(16), rel=1e-4)


@each
def test_pairs_that_match_cost_less_and_are_found(name):
    objective = make_objective(name, None)
    z = np.random.default_rng(0).normal(size=(16, 32)).astype(np.float32)
    near, far = sides(objective, z, z), sides(objective, z, np.roll(z, 1, axis=0))
    assert loss_of(objective, Outputs(*near, objective.scalars)) < loss_of(
        objective, Outputs(*far, objective.scalars)
    )
    found = np.asarray(objective.scores(*near)).argmax(axis=1)
    np.testing.assert_array_equal(found, np.arange(16))


@pytest.mark.parametrize("name", ["gaussian", "csd"])
def test_scores_rank_as_the_loss_compares(name):
    """The candidate whose exchange for the own one lowers the loss most is scored highest."""
    objective = make_objective(name, None)
    rng = np.random.default_rng(1)
    query, candidates = rng.normal(size=(1, 4)), rng.normal(size=(6, 4))
    log_std = rng.uniform(-1, 0.5, size=6)
    scores = np.asarray(
        objective.scores(Embedded(query, np.zeros(1)), Embedded(candidates, log_std))
    )[0]
    if name == "gaussian":
        squared = ((candidates - query) ** 2).sum(axis=1)
        expected = -log_std - squared / np.exp(log_std) ** 2
    else:
        unit = candidates / np.linalg.norm(candidates, axis=1, keepdims=True)
        own = query / np.linalg.norm(query)
        expected = 1 - ((unit - own) ** 2).sum(axis=1) - 4 * np.exp(log_std) ** 2 + 1
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


def small_model(objective, dim=16):
    """The dual encoder around encoders that compile in a moment."""
    return DualEncoder(
        image=Side(MLP(widths=(8,), axis_name="batch"), dim, objective.log_std),
        text=Side(TextTransformer(300, dim=8, depth=1, heads=2), dim, objective.log_std),
        scalars=objective.scalars,
    )


@two_by_default
def test_every_loss_trains_every_part(name):
    objective = make_objective(name, None)
    model = small_model(objective)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
    tokens = rng.integers(1, 300, (8, 5)).astype(np.int32)
    variables = jit_once(lambda k: model.init(k, jnp.zeros((1, 8, 8, 3)), tokens[:1], train=False))(
        jax.random.key(0)
    )
    batch = {"image": images, "tokens": tokens, "index": np.arange(8)}
    loss_fn = make_loss(model, objective)
    carried = {"batch_stats": variables["batch_stats"]}

    def loss(params):
        value, (_, metrics) = loss_fn(params, carried, batch, jax.random.key(1))
        return value, metrics

    @jit_once
    def gradient(params):
        over_one = jax.vmap(lambda _: jax.grad(loss, has_aux=True)(params), axis_name="batch")
        return over_one(jnp.zeros(1))

    gradients, metrics = gradient(variables["params"])
    assert set(metrics) == set(objective.scalars)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    for part in variables["params"]:
        assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients[part])), part
    assert ("Dense_1" in variables["params"]["text"]) == (objective.log_std is not None)


def test_embeddings_start_with_norm_one_and_deviation_one():
    objective = make_objective("gaussian", None)
    model = small_model(objective, dim=128)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.uniform(size=(32, 8, 8, 3)), jnp.float32)
    tokens = rng.integers(1, 300, (32, 5))
    outputs, _ = jit_once(lambda key: model.init_with_output(key, images, tokens, train=False))(
        jax.random.key(0)
    )
    for side in (outputs.image, outputs.text):
        np.testing.assert_allclose(np.linalg.norm(side.z, axis=1).mean(), 1, atol=0.15)
        np.testing.assert_array_equal(side.log_std, 0)


def test_the_floor_of_npairs_is_reached_by_a_simplex(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "loss": 4.8}\n')
    workdir = Workdir(tmp_path, resumed=False)
    note = loss_notes(workdir, make_objective("npairs", 1.0), 128)
    simplex = np.eye(128) - 1 / 128
    floor = float(npairs_loss(simplex, simplex))
    assert f"below {floor:.3f}" in note
    assert "4.800, 0.99 of chance, 4.852 (ln 128)" in note
