"""Sums of mined hinges for each anchor: from one matrix of all pairs, or for some anchors at a time.

With c_ij the counts of an anchor's triplets (see `jaxcon.losses.mining`), its hinges add up to
`t_i = sum_p c_ip (d_ip + margin) - sum_n c_in d_in` over `a_i = sum_p c_ip` triplets.

Counts carry no gradient. Where a sum of the t_i with known weights is wanted, the gradient of a block
of anchors is thus known as soon as the block is mined, and one sweep over the blocks finds value and
gradient. `jax.checkpoint` alone would mine twice, which takes nearly all of the time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import eval_jaxpr

from jaxcon.losses._channels import other_classes, peers
from jaxcon.similarity.distances import add_pulled_back, squares_and_near
from jaxcon.streaming import PRECISION, filled_like
from jaxcon.typing import Array

Mining = Callable[[Array, Array, Array, Array], Array]

# Mined together, of at most so many candidates in all: enough to fill a machine, few enough to cost no
# memory. A function like `semi_hard` holds some ten numbers for each.
_ANCHORS_AT_ONCE = 128
_CANDIDATES_AT_ONCE = 2**20


class Members(NamedTuple):
    """What decides which rows are positives and negatives of each other, each `[n]`."""

    position: Array
    ids: Array
    labels: Array
    valid: Array


class Operands(NamedTuple):
    """What a sum over blocks is differentiable in.

    Attributes:
      y: `[m, dim]`, the rows of all devices, centred.
      weights: `[n]`, of this device's anchors; 0 where they are not valid.
      margin: scalar.
    """

    y: Array
    weights: Array
    margin: Array


class Fixed(NamedTuple):
    """What it is not differentiable in.

    Attributes:
      own: this device's anchors.
      everyone: the rows of all devices.
      captured: arrays that the mining function closes over.
    """

    own: Members
    everyone: Members
    captured: Any


class How(NamedTuple):
    """Which sum over blocks it is.

    Attributes:
      mine: `(captured, distances, positives, negatives, margin) -> counts`.
      anchors: the most anchors of a block.
      averaged: whether an anchor adds the mean of its hinges, or their sum.
    """

    mine: Callable[..., Array]
    anchors: int
    averaged: bool


def kinds(row: Members, col: Members) -> tuple[Array, Array]:
    """Returns which pairs of rows and columns are positives, and which negatives: bool `[n, m]`."""
    row = jax.tree.map(lambda a: a[:, None], row)
    col = jax.tree.map(lambda a: a[None, :], col)
    valid = row.valid & col.valid
    return peers(row, col) & valid, other_classes(row, col) & valid


def hinges(
    squares: Array, positives: Array, negatives: Array, margin: Array, mine: Mining
) -> tuple[Array, Array]:
    """Computes t_i and a_i of each row of a matrix of squared distances `[n, m]`."""
    zero = squares <= 0  # equal rows, where the root has no derivative, and pairs of no kind
    distances = jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squares)))
    counts = lax.stop_gradient(
        lax.map(
            lambda anchor: mine(anchor[0], anchor[1], anchor[2], margin),
            (lax.stop_gradient(distances), positives, negatives),
            batch_size=min(_ANCHORS_AT_ONCE, max(_CANDIDATES_AT_ONCE // squares.shape[1], 1)),
        )
    )
    # Products, not a choice by count: a NaN distance is in no triplet, but 0 * NaN is NaN.
    gaps = jnp.where(positives, counts * (distances + margin), 0)
    gaps = gaps - jnp.where(negatives, counts * distances, 0)
    active = jnp.sum(jnp.where(positives, counts, 0), axis=1)
    return jnp.sum(gaps, axis=1), active


def hinges_in_blocks(how: How, y: Array, margin: Array, fixed: Fixed) -> tuple[Array, Array]:
    """Computes t_i and a_i of this device's anchors; a derivative mines each block again."""

    @jax.checkpoint
    def of_block(i: Array) -> tuple[Array, Array]:
        _, positives, negatives, (squares, _) = _block(y, fixed, i)
        return hinges(squares, positives, negatives, margin, partial(how.mine, fixed.captured))

    n = len(fixed.own.valid)
    return jax.tree.map(lambda a: a.reshape(-1)[:n], lax.map(of_block, _indices(n, how.anchors)))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def weighted_sum(how: How, operands: Operands, fixed: Fixed) -> tuple[Array, Array]:
    """Computes `sum w_i t_i`, or averaged `sum w_i t_i / a_i`, and a_i, which have no derivative."""
    totals, active = hinges_in_blocks(how, operands.y, operands.margin, fixed)
    return _weighed(how, totals, active, operands.weights), active


@weighted_sum.defjvp
def _weighted_sum_jvp(how: How, primals: Any, tangents: Any) -> Any:
    # The gradient comes with the value, so that the tangent is a product in every mode.
    (total, active), gradient = _sweep(how, *primals)
    tangent = sum(jnp.sum(g * d) for g, d in zip(gradient, tangents[0], strict=True))
    return (total, active), (tangent, filled_like(active))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _sweep(how: How, operands: Operands, fixed: Fixed) -> tuple[tuple[Array, Array], Operands]:
    """Computes what `weighted_sum` does, and the gradient of the sum."""
    y, weights, margin = operands
    n = len(weights)

    def visit(carry: Any, i: Array) -> Any:
        total, of_y, of_margin = carry
        own, positives, negatives, (squares, near) = _block(y, fixed, i)

        def weighed(squares: Array, weights: Array, margin: Array) -> tuple[Array, Array]:
            mine = partial(how.mine, fixed.captured)
            totals, active = hinges(squares, positives, negatives, margin, mine)
            return _weighed(how, totals, active, weights), active

        differentiated = jax.value_and_grad(weighed, argnums=(0, 1, 2), has_aux=True)
        (more, active), gradients = differentiated(squares, _take(weights, i), margin)
        of_squares, of_weights, more_of_margin = gradients
        of_y = add_pulled_back(of_y, y, own.position, near, of_squares, precision=PRECISION)
        return (total + more, of_y, of_margin + more_of_margin), (active, of_weights)

    start = filled_like(margin), filled_like(y), filled_like(margin)
    (total, of_y, of_margin), per_anchor = lax.scan(visit, start, _indices(n, how.anchors))
    active, of_weights = (a.reshape(-1)[:n] for a in per_anchor)
    return (total, active), Operands(of_y, of_weights, of_margin)


@_sweep.defjvp
def _sweep_jvp(how: How, primals: Any, tangents: Any) -> Any:
    """Differentiates the gradient as JAX finds it, for second derivatives."""
    operands, fixed = primals

    def plain(operands: Operands) -> tuple[Array, Array]:
        totals, active = hinges_in_blocks(how, operands.y, operands.margin, fixed)
        return _weighed(how, totals, active, operands.weights), active

    _, tangent = jax.jvp(jax.value_and_grad(plain, has_aux=True), (operands,), (tangents[0],))
    return _sweep(how, operands, fixed), tangent


def open_closure(mining: Mining, *examples: Array) -> tuple[Callable[..., Array], Any]:
    """Returns `(captured, *arguments) -> counts`, and the arrays that the function closes over.

    A rule of differentiation must be given arrays that are traced: it may not close over them.
    """
    # A function of its own for each call: JAX would find a method again whose object has changed.
    program = jax.make_jaxpr(lambda *arguments: mining(*arguments))(*examples)

    def mine(captured: Any, *arguments: Array) -> Array:
        (counts,) = eval_jaxpr(program.jaxpr, captured, *arguments)
        return counts

    return mine, program.consts


def _weighed(how: How, totals: Array, active: Array, weights: Array) -> Array:
    """Adds up what each anchor adds, times its weight."""
    if how.averaged:
        totals = totals / jnp.where(active > 0, active, 1)
    return jnp.sum(weights * totals)


def _block(y: Array, fixed: Fixed, i: Array) -> tuple[Members, Array, Array, tuple[Array, Array]]:
    """Returns the anchors i, their positives, their negatives, and what `squares_and_near` does."""
    own = jax.tree.map(lambda a: _take(a, i), fixed.own)
    own = own._replace(valid=own.valid & (i < len(fixed.own.valid)))
    positives, negatives = kinds(own, fixed.everyone)
    x, keep = y[own.position], positives | negatives
    return (
        own,
        positives,
        negatives,
        squares_and_near(x, y, keep, precision=PRECISION, centred=True),
    )


def _take(a: Array, i: Array) -> Array:
    """Returns entries i; beyond the last one, the last one again."""
    return a[jnp.minimum(i, len(a) - 1)]


def _indices(n: int, anchors: int) -> Array:
    """Returns `[blocks, size]`: n indices in as few and as even blocks as can be, some beyond n."""
    blocks = -(-n // anchors)
    return jnp.arange(blocks * -(-n // blocks), dtype=jnp.int32).reshape(blocks, -1)
