"""Recomputed encoders: the same values, gradients and statistics, with less kept in between."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcon.encoders.remat import rematerialized
from tests.encoders.modules import MODULES, TOKENS
from tests.marks import exhaustive_unless

SMALL = {name: MODULES[name] for name in ("mlp", "convnet", "resnet basic", "vit", "text")}


class SetUp(nn.Module):
    """An encoder whose parts are made in `setup`, one of them called with its switch by position."""

    def setup(self):
        self.first, self.drop = nn.Dense(8), nn.Dropout(0.5)

    def __call__(self, x, *, train):
        return self.drop(nn.relu(self.first(x.reshape(len(x), -1))), not train)


def inputs_of(x):
    shape = (8, *x.shape[1:])
    rng = np.random.default_rng(0)
    if x.dtype == TOKENS.dtype:
        return rng.integers(0, 9, shape, np.int32)
    return rng.uniform(size=shape).astype(np.float32)


def start(module, x):
    return jax.jit(partial(module.init, train=False))(jax.random.key(0), x)


def outcome(apply, variables, x, **settings):
    """Value, statistics, gradient; of what the module made."""

    def loss(params):
        mutable = [name for name in variables if name != "params"]
        made = {**variables, "params": params}
        z, moved = apply(made, x, train=True, mutable=mutable, **settings)
        return jnp.sum(jnp.sin(z)), moved

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])


def kept(apply, variables, x):
    """Numbers that a forward pass keeps for the backward pass."""

    def loss(params):
        made = {**variables, "params": params}
        return apply(made, x, train=True, mutable=["batch_stats"])[0]

    saved = jax.eval_shape(lambda p: jax.vjp(loss, p)[1], variables["params"])
    return sum(leaf.size for leaf in jax.tree.leaves(saved))


@pytest.mark.parametrize("name", exhaustive_unless(lambda name: name in ("convnet", "vit"), SMALL))
def test_nothing_changes_but_what_is_kept(name):
    module, like = SMALL[name]
    x = inputs_of(like)
    variables = start(module, x)
    again = rematerialized(module.apply, ())
    ours, plain = outcome(again, variables, x), outcome(module.apply, variables, x)
    assert jax.tree.structure(ours) == jax.tree.structure(plain)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert kept(again, variables, x) < kept(module.apply, variables, x)


def test_parts_from_setup_and_their_random_numbers():
    module, x = SetUp(), inputs_of(MODULES["mlp"][1])
    variables = start(module, x)
    rngs = {"rngs": {"dropout": jax.random.key(3)}}
    ours = outcome(rematerialized(module.apply, ()), variables, x, **rngs)
    plain = outcome(module.apply, variables, x, **rngs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_only_the_named_encoder_is_recomputed():
    module, like = MODULES["side"]
    x = inputs_of(like)
    variables = start(module, x)

    def parts(*encoders):
        def embed(params):
            made = {**variables, "params": params}
            apply = rematerialized(module.apply, *encoders)
            return apply(made, x, train=True, mutable=["batch_stats"])[0].z

        return str(jax.make_jaxpr(embed)(variables["params"])).count("remat")

    assert parts() == 0
    # An MLP of one layer is a product and a norm; a side adds a norm, and two products.
    assert (parts(["encoder"]), parts([])) == (2, 4)
