"""The text transformer: padding changes nothing, order does; the promises of all encoders."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon.encoders import TextTransformer, text_base

TOKENS = np.array([[5, 6, 7, 0, 0, 0], [7, 6, 5, 0, 0, 0], [3, 4, 5, 6, 7, 8], [0] * 6], np.int32)
NET = TextTransformer(vocabulary=9, dim=8, depth=1, heads=2)


@pytest.fixture(scope="module")
def variables():
    start = jax.jit(partial(NET.init, train=False))(jax.random.key(0), TOKENS)
    # Larger embeddings than at the start, so that what differs differs by more than rounding.
    return jax.tree.map(lambda p: p if p.ndim == 1 else 5 * p, start)


def apply(variables, tokens, net=NET):
    return jax.jit(partial(net.apply, train=False))(variables, tokens)


@jax.jit
@jax.grad
def squares(variables, tokens):
    return jnp.sum(NET.apply(variables, tokens, train=False) ** 2)


def test_features_depend_on_the_order_of_the_words(variables):
    features = apply(variables, TOKENS)
    assert features.shape == (4, 8)
    assert np.abs(features[0] - features[1]).max() > 1e-2


def test_padding_is_never_seen(variables):
    """Whatever stands for padding in the table, the features stay, to the last bit."""
    table = variables["params"]["Embed_0"]["embedding"]
    changed = jax.tree.map(lambda p: p, variables)
    changed["params"]["Embed_0"]["embedding"] = table.at[0].set(1e3)
    np.testing.assert_array_equal(apply(changed, TOKENS)[:3], apply(variables, TOKENS)[:3])
    gradient = squares(variables, TOKENS)["params"]
    np.testing.assert_array_equal(gradient["Embed_0"]["embedding"][0], 0)
    assert np.abs(gradient["Embed_0"]["embedding"][5]).max() > 0


def test_a_shorter_row_is_the_mean_of_its_own_tokens(variables):
    """Cutting the columns that are padding for all rows, with their positions, changes nothing."""
    short = jax.tree.map(lambda p: p, variables)
    short["params"]["positions"] = short["params"]["positions"][:3]
    np.testing.assert_allclose(
        apply(short, TOKENS[:2, :3]), apply(variables, TOKENS[:2]), rtol=1e-5, atol=1e-6
    )


def test_a_row_of_padding_alone_is_zero_and_passes_finite_gradients(variables):
    features = apply(variables, TOKENS)
    np.testing.assert_array_equal(features[3], 0)
    gradients = jax.jit(jax.grad(lambda v: jnp.sum(NET.apply(v, TOKENS[3:], train=False))))
    gradient = gradients(variables)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))


def test_rows_do_not_see_each_other(variables):
    np.testing.assert_allclose(
        apply(variables, TOKENS)[2:3], apply(variables, TOKENS[2:3]), atol=1e-6
    )


def test_bf16_computes_in_bf16_and_keeps_float32_outside(variables):
    full = apply(variables, TOKENS)
    net = TextTransformer(vocabulary=9, dim=8, depth=1, heads=2, dtype=jnp.bfloat16)
    half = apply(variables, TOKENS, net)
    assert half.dtype == full.dtype == jnp.float32
    error = np.abs(half - full).max() / np.abs(full).max()
    assert 1e-5 < error < 0.1


@pytest.mark.parametrize("wrong", [-1, 9])
def test_numbers_that_are_no_tokens_are_refused_or_nan(variables, wrong):
    """Counting back from the end, -1 would be the last token; beyond the end lies nothing."""
    tokens = np.array([[5, wrong, 7, 0, 0, 0], [5, 6, 0, 0, 0, 0]], np.int32)
    with pytest.raises(ValueError, match=rf"expected numbers from 0 to \d+, got .*{wrong}"):
        NET.apply(variables, tokens, train=False)
    features = jax.jit(partial(NET.apply, train=False))(variables, tokens)
    assert np.isnan(features[0]).all()
    assert np.isfinite(features[1]).all()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32])
def test_numbers_of_every_integer_dtype_are_the_same_tokens(dtype):
    net = TextTransformer(vocabulary=300, dim=8, depth=1, heads=2)
    tokens = np.array([[5, 127, 7, 0, 0, 0], [5, 6, 0, 0, 0, 0]])
    start = jax.jit(partial(net.init, train=False))(jax.random.key(0), tokens)
    expected, features = (apply(start, rows, net) for rows in (tokens, tokens.astype(dtype)))
    np.testing.assert_allclose(features, expected, atol=1e-6)
    if np.issubdtype(
        dtype, np.signedinteger
    ):  # whether it can hold the end of the vocabulary or not
        features = apply(start, np.where(tokens == 127, -1, tokens).astype(dtype), net)
        assert np.isnan(features[0]).all()
        assert np.isfinite(features[1]).all()


def test_rows_of_another_length_are_refused(variables):
    with pytest.raises(ValueError, match=r"expected rows of \d+, .* got rows of 3"):
        NET.apply(variables, np.ones((2, 3), np.int32), train=False)


def test_the_base_one_has_the_size_of_clips():
    """Of ViT-B/32's and B/16's text transformer, without the projection, which is `Side`'s."""
    tokens = jax.ShapeDtypeStruct((1, 77), jnp.int32)
    shapes = jax.eval_shape(partial(text_base(49_408).init, train=False), jax.random.key(0), tokens)
    sizes = {name: sum(p.size for p in jax.tree.leaves(t)) for name, t in shapes["params"].items()}
    blocks = [sizes.pop(name) for name in list(sizes) if name.startswith("TransformerBlock")]
    assert (len(blocks), sum(blocks)) == (12, 37_828_608)
    assert sizes == {"Embed_0": 49_408 * 512, "positions": 77 * 512, "LayerNorm_0": 2 * 512}
