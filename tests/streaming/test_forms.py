"""The forms of a reduction: which is chosen, that they agree, and what each costs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon.planning.memory import memory_of
from jaxcon.streaming import Channel, Side, reduce_pairs
from jaxcon.streaming.rules import LINES, Line, everywhere, in_force
from jaxcon.streaming.tiles import tile_count, tile_index
from tests.streaming.problems import differentiable, lse_sum, one_set, products, total

# `block_size=None` takes tiles that are kept, whatever the size.
NONE_WHOLE = {"whole_pairs": 0, "whole_pairs_of_one_set": 0}
KEPT = everywhere(Line(block=8, lanes=1, kept_pairs=2**26), **NONE_WHOLE)


@pytest.mark.parametrize("n", [1, 512, 513, 1025, 3000])
def test_blocks_of_no_given_size_leave_little_to_fill_up(n):
    line = LINES["cpu"]
    block = line.edge(n, line.block)
    blocks = -(-n // block)
    assert block <= line.block
    assert blocks == -(-n // line.block)
    assert blocks * block - n < blocks * line.lanes


@pytest.mark.parametrize("distances", [False, True])
def test_kept_tiles_give_the_same(data, distances):
    diff = differentiable(data)

    def value_and_grad(diff):
        return jax.jit(jax.value_and_grad(lambda d: total(data, d, distances=distances)))(diff)

    plain = value_and_grad(diff)
    with in_force(KEPT):
        kept = value_and_grad(diff)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), kept, plain)


@pytest.mark.parametrize(
    ("limits", "expected", "loops"),
    # A product forward and two backward; in tiles that are not kept one more, to find them again.
    [((2**14, 0), 3, False), ((2**14 - 1, 2**14), 3, True), ((2**14 - 1, 2**14 - 1), 4, True)],
    ids=["one matrix", "kept tiles", "tiles"],
)
@pytest.mark.parametrize("one_set", [False, True])
def test_the_form_follows_from_the_number_of_comparisons(one_set, limits, expected, loops):
    whole, kept = limits
    two, one = (0, whole) if one_set else (whole, 0)
    line = Line(block=64, lanes=1, kept_pairs=kept)
    rule = everywhere(line, whole_pairs=two, whole_pairs_of_one_set=one)
    x, ids = jnp.ones((128, 64)), jnp.arange(128)

    def total(x, y):
        cols = None if one_set else Side(y, ids)
        return jnp.sum(reduce_pairs(Side(x, ids), cols, [Channel(1)])[0])

    step = jax.value_and_grad(total, argnums=(0, 1))
    with in_force(rule):
        assert products(step, x, x + 1, 64 if loops else 128) == expected
        assert ("while(" in jax.jit(step).lower(x, x + 1).compile().as_text()) == loops


def curvature(p, **settings):
    """A gradient of a function of the gradient, for a loss-like channel."""
    channels = (Channel(1),)

    def inner(x):
        g = jax.grad(lambda x: total(p, {"x": x}, channels, **settings))(x)
        return jnp.sum(g * jnp.cos(p["x"]))

    return jax.jit(jax.grad(inner))(p["x"])


def test_second_derivatives_reverse_over_reverse():
    p = one_set(21)
    plain = curvature(p)
    np.testing.assert_allclose(curvature(p, block_size=8), plain, rtol=1e-4, atol=1e-5)
    with in_force(KEPT):
        kept = curvature(p)
    np.testing.assert_allclose(kept, plain, rtol=1e-4, atol=1e-5)


def test_forward_mode_is_a_type_error_when_tiled_and_works_when_dense():
    p = one_set(9)
    f = partial(total, p, channels=(Channel(1),))
    jax.jvp(lambda x: f({"x": x}), (p["x"],), (p["x"],))
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda x: f({"x": x}, block_size=4), (p["x"],), (p["x"],))


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 7, 8])
def test_the_schedule_visits_each_tile_once(blocks):
    for cols, expected in (
        (None, {(i, j) for i in range(blocks) for j in range(i, blocks)}),
        (3, {(i, j) for i in range(blocks) for j in range(3)}),
    ):
        visited = tile_index(np.arange(tile_count(blocks, cols)), blocks, cols)
        visited = [(int(i), int(j)) for i, j in zip(*visited, strict=True)]
        assert set(visited) == expected
        assert len(visited) == len(expected)


def test_memory_is_linear_in_the_rows():
    def temporaries(n):
        x = jax.ShapeDtypeStruct((n, 16), jnp.float32)
        step = jax.jit(jax.grad(lambda x, y: lse_sum(x, y, 64), argnums=(0, 1)))
        return memory_of(step.lower(x, x).compile()).temporaries

    small, large = temporaries(1024), temporaries(8192)
    assert large < 9 * small
    assert large < 8192 * 8192 * 4 / 40  # one matrix of all pairs


def test_one_set_of_rows_costs_one_exponential_per_unordered_pair():
    def sweep_text(same):
        x = jnp.ones((64, 8))
        ids = jnp.arange(64)

        def f(x, y):
            cols = None if same else Side(y, ids)
            return jnp.sum(
                reduce_pairs(Side(x, ids), cols, [Channel(1)], block_size=16, bound=1.0)[0]
            )

        return jax.jit(jax.grad(f)).lower(x, x + 1).compile().as_text()

    def per_tile(text):
        return sum(" exponential(" in line and "f32[16,16]" in line for line in text.splitlines())

    assert per_tile(sweep_text(True)) == per_tile(sweep_text(False)) == 2  # forward, backward
