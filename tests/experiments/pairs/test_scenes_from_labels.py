"""With labels, the default image encoder learns every attribute of single objects in a minute or so.

What a caption tells must be there to be seen: the retrieval scores of `experiments.clip` are then those
of the training, not of pictures that are too small.
"""

from functools import partial

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from experiments.pairs.model import make_model
from experiments.pairs.objectives import make_objective
from jaxcon.data.shipped.drawing import COLOURS, SHAPES, Draws
from jaxcon.data.shipped.grammar import POSITIONS, SIZES
from jaxcon.data.shipped.scenes import SEED, SIDE, make_example, sample_scene

VALUES = {
    "shape": list(SHAPES),
    "colour": list(COLOURS),
    "size": list(SIZES),
    "position": list(POSITIONS),
}
ENDS = np.cumsum([len(values) for values in VALUES.values()])
BATCH, STEPS = 128, 800


def single_objects(count, *, test, start):
    """Images of one object, and what it is: none of the examples of the dataset."""
    images, labels, number = [], [], start
    while len(images) < count:
        if len(sample_scene(Draws(SEED, 5 * number), test=test).things) == 1:
            example = make_example(number, test=test)
            (thing,) = example.scene.things
            images.append(example.image)
            labels.append([values.index(getattr(thing, name)) for name, values in VALUES.items()])
        number += 1
    return np.stack(images), np.array(labels)


class Labelled(nn.Module):
    encoder: nn.Module

    @nn.compact
    def __call__(self, images, *, train):
        features = self.encoder(images / 255.0, train=train)
        logits = nn.Dense(int(ENDS[-1]))(nn.LayerNorm()(features))
        return jax.numpy.split(logits, ENDS[:-1], axis=1)


@pytest.mark.exhaustive
def test_attributes_are_learned_from_labels():
    images, labels = single_objects(8000, test=False, start=100_000)
    objective = make_objective("clip", None)
    dual = make_model(
        "layout_convnet", objective, side=SIDE, vocabulary=300, dim=128, precision="f32"
    )
    model = Labelled(dual.image.encoder.clone(axis_name=None))
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), images[:1])
    optimizer = optax.adamw(optax.warmup_cosine_decay_schedule(0, 4e-3, 50, STEPS))

    def loss(params, statistics, x, y):
        apply = partial(model.apply, train=True, mutable=["batch_stats"])
        logits, updated = apply({"params": params, "batch_stats": statistics}, x)
        entropy = optax.softmax_cross_entropy_with_integer_labels
        terms = [entropy(out, y[:, k]).mean() for k, out in enumerate(logits)]
        return sum(terms), updated["batch_stats"]

    @jax.jit
    def step(params, statistics, state, x, y):
        gradient, statistics = jax.grad(loss, has_aux=True)(params, statistics, x, y)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), statistics, state

    params, statistics = variables["params"], variables["batch_stats"]
    state, rng = optimizer.init(params), np.random.default_rng(0)
    for _ in range(STEPS):
        rows = rng.integers(len(images), size=BATCH)
        params, statistics, state = step(params, statistics, state, images[rows], labels[rows])

    images, labels = single_objects(1000, test=True, start=200_000)  # combinations never seen
    trained = {"params": params, "batch_stats": statistics}
    logits = jax.jit(partial(model.apply, train=False))(trained, images)
    shares = {
        name: np.mean(np.argmax(out, axis=1) == labels[:, k])
        for k, (name, out) in enumerate(zip(VALUES, logits, strict=True))
    }
    assert min(shares.values()) >= 0.95, shares
