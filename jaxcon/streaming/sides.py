"""One side of a similarity matrix: rows and what is known of them, as they are given and in blocks.

`Blocks` with a `scale` stand for `u_i = scale_i z_i / |z_i|`. These rows never exist whole:
a sweep normalizes the block that it visits.
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
      valid: bool `[n]`; False takes a row out of all pairs, though its z must be finite. None: none.
      aux: arrays `[n]`, handed to `channel.logits`. Differentiable.
    """

    z: Array
    ids: Any
    valid: Array | None = None
    aux: Any = ()


class Blocks(NamedTuple):
    """A side cut into blocks: all arrays are `[blocks, block, ...]`.

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


def in_blocks(side: Side, block: int, scale: Array | None = None) -> Blocks:
    """The side in blocks of at most that size; the last is filled up with rows that are not valid."""
    n = side.z.shape[0]
    room = max(n, 1)  # without any row one of filling
    block = min(block, room)
    blocks = -(-room // block)
    if blocks * block > n and side.valid is None:
        side = side._replace(valid=jnp.ones(n, bool))
    cut = jax.tree.map(lambda a: cut_rows(a, blocks, block), side)
    return Blocks(*cut, scale=None if scale is None else jnp.full((blocks, block), scale))


def cut_rows(a: Array, blocks: int, block: int) -> Array:
    """[n, ...] -> [blocks, block, ...], filled up with zeros."""
    padding = blocks * block - len(a)
    a = jnp.pad(a, ((0, padding),) + ((0, 0),) * (a.ndim - 1)) if padding else a
    return a.reshape(blocks, block, *a.shape[1:])


def measured(side: Blocks) -> Blocks:
    """The side with its norms. Called inside a custom derivative, which knows that they depend on z."""
    if side.scale is None:
        return side
    return side._replace(norms=jax.tree.map(lambda a: jnp.squeeze(a, -1), norms(side.z)))


def unit_rows(block: Blocks, scale: Array | None) -> Array:
    """`scale z / |z|` of rows with norms."""
    magnitude, inverse = block.norms
    factor = inverse if scale is None else inverse * scale
    return (block.z / magnitude[..., None]) * factor[..., None]


def operand(block: Blocks) -> Array:
    """The rows of a block as they are multiplied."""
    return block.z if block.scale is None else unit_rows(block, block.scale)
