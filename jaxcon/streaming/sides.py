"""One side of a similarity matrix: rows and what is known of them.

An `Operand` with a `scale` stands for `u_i = scale_i z_i / |z_i|`. Unless a platform's line says
that it pays to make these rows ready, they never all exist at once: a sweep normalizes the block that
it visits.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcon.similarity import norms
from jaxcon.typing import Array


class Side(NamedTuple):
    """The rows, or the columns, of a matrix of all pairs, and what is known of each.

    Attributes:
      z: `[n, dim]`.
      ids: int `[n]` or a tuple of them, handed to `channel.pairs`.
      valid: bool `[n]`; False takes a row out of all pairs, but its z must be finite. None: all count.
      aux: arrays `[n]`, handed to `channel.logits`. Differentiable.
    """

    z: Array
    ids: Any
    valid: Array | None = None
    aux: Any = ()


class Operand(NamedTuple):
    """A side as a sweep takes it: all arrays are `[n, ...]`, or `[blocks, block, ...]` once cut.

    Attributes:
      z, ids, valid, aux: those of the side.
      scale: the length to give each row; None: they are multiplied as they are.
      norms: magnitude and inverse norm of each row, from `measured`; before that, ().
    """

    z: Array
    ids: Any
    valid: Array | None
    aux: Any
    scale: Array | None = None
    norms: Any = ()


def operand(side: Side, length: Array | None = None) -> Operand:
    """Makes an operand of a side: rows get the given length, a scalar; None: they stay as they are."""
    return Operand(*side, scale=None if length is None else jnp.full(len(side.z), length))


def measured(side: Operand) -> Operand:
    """Returns the side with its norms.

    Called inside a custom derivative, which knows that they depend on z.
    """
    if side.scale is None:
        return side
    return side._replace(norms=jax.tree.map(lambda a: jnp.squeeze(a, -1), norms(side.z)))


def all_ready(side: Operand) -> Operand:
    """Returns a measured side with all its rows as they are multiplied."""
    if side.scale is None:
        return side
    return side._replace(z=unit_rows(side, side.scale), scale=None, norms=())


def in_blocks(side: Operand, block: int) -> Operand:
    """Cuts the side into blocks of at most that size; invalid rows fill up the last."""
    n = side.z.shape[0]
    blocks, block = block_shape(n, block)
    if blocks * block > n and side.valid is None:
        side = side._replace(valid=jnp.ones(n, bool))
    cut = jax.tree.map(lambda a: cut_rows(a, blocks, block), side)
    if side.scale is None or blocks * block == n:
        return cut
    scale, magnitude = (cut_rows(a, blocks, block, 1) for a in (side.scale, side.norms[0]))
    return cut._replace(scale=scale, norms=(magnitude, cut.norms[1]))  # no 0 to divide by


def block_shape(n: int, block: int) -> tuple[int, int]:
    """Returns how many blocks of at most that size n rows take, and the size of each."""
    room = max(n, 1)  # without any row, one row of filling
    block = min(block, room)
    return -(-room // block), block


def cut_rows(a: Array, blocks: int, block: int, filling: float = 0) -> Array:
    """Cuts `[n, ...]` into `[blocks, block, ...]`, filled up."""
    padding = blocks * block - len(a)
    if padding:
        widths = ((0, padding),) + ((0, 0),) * (a.ndim - 1)
        a = jnp.pad(a, widths, constant_values=filling)
    return a.reshape(blocks, block, *a.shape[1:])


def cut_like(tree: Any, blocks: Operand) -> Any:
    """Cuts every array of a tree, `[n, ...]`, into the blocks of the side that it belongs to."""
    return jax.tree.map(lambda a: cut_rows(a, *blocks.z.shape[:2]), tree)


def rows_of(blocks: Any, n: int) -> Any:
    """Joins `[blocks, block, ...]` to `[n, ...]`, without the filling, for every array of a tree."""
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], blocks)


def unit_rows(block: Operand, scale: Array | None) -> Array:
    """Computes `scale z / |z|` of rows with norms."""
    magnitude, inverse = block.norms
    factor = inverse if scale is None else inverse * scale
    return (block.z / magnitude[..., None]) * factor[..., None]


def multiplied(block: Operand) -> Array:
    """Returns the rows of a block as they are multiplied."""
    return block.z if block.scale is None else unit_rows(block, block.scale)
