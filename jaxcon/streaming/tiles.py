"""The tiles of a similarity matrix: which there are, and what a sweep sees of each.

A tile holds the products of a block of rows with a block of columns. If both sides are one set of rows,
`s_ij = s_ji`: only tiles on and above the diagonal are visited, and each serves in two roles, as it
stands and transposed. That is 2 instead of 4 products of N x N x dim.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcon.similarity.distances import squares_and_near
from jaxcon.streaming.channels import Channel, Plan, any_pair, product
from jaxcon.streaming.sides import Operand, multiplied
from jaxcon.streaming.stores import take
from jaxcon.typing import Array


class Tile(NamedTuple):
    """A tile of block i of the rows and block j of the columns.

    Attributes:
      s: `[b, c]`, the products of rows and columns, or their squared distances.
      near: for distances, the rows that have close pairs; see `jaxcon.similarity.distances`.
    """

    i: Array
    j: Array
    row: Operand
    col: Operand
    x: Array
    y: Array
    s: Array
    near: Any

    @property
    def matrix(self) -> tuple[Array, Any]:
        """What a sweep keeps of a tile."""
        return self.s, self.near


class Part(NamedTuple):
    """One channel on one tile.

    Attributes:
      channel: its index in the plan.
      axis: the axis of the tile to reduce; 1 gives values of rows.
      source: the index of its logits among `all_logits`.
      keep: the pairs that count.
    """

    channel: int
    axis: int
    source: int
    keep: Array


def tile_count(n: int, m: int | None) -> int:
    """Counts the tiles a sweep visits of n and m blocks; m None: those on and above the diagonal."""
    return n * (n + 1) // 2 if m is None else n * m


def tile_index(k: Any, n: int, m: int | None) -> tuple[Any, Any]:
    """Returns the block row and block column of the k-th tile, row by row.

    Above the diagonal of n blocks, row r is followed by the row that fills it up to a fixed width:
    for odd n width n, row n - r; for even n width n + 1, row n - 1 - r.
    """
    if m is not None:
        return k // m, k % m
    width = n + 1 - n % 2
    r, c = k // width, k % width
    first = c < n - r
    return jnp.where(first, r, n - 1 - r + n % 2), jnp.where(first, r + c, c - 1 + n % 2)


def tile_at(plan: Plan, rows: Operand, cols: Operand | None, k: Array, kept: Any = None) -> Tile:
    """Returns the k-th tile; `kept`: its matrix, if an earlier sweep kept it."""
    i, j = tile_index(k, len(rows.z), None if cols is None else len(cols.z))
    row, col = take(rows, i), take(rows if cols is None else cols, j)
    x, y = multiplied(row), multiplied(col)
    matrix: tuple[Array, Any]
    if kept is not None:
        matrix = kept
    elif plan.distances:
        keep = any_pair([p.keep for p in all_parts(plan, row, col)], (len(x), len(y)))
        matrix = squares_and_near(x, y, keep, precision=plan.precision)
    else:
        matrix = product(x, y, (1, 1), plan.precision), None  # (b, d) . (d, c) -> (b, c)
    return Tile(i, j, row, col, x, y, *matrix)


def all_parts(plan: Plan, row: Operand, col: Operand) -> list[Part]:
    """Lists every channel on the tile of a block of rows and one of columns, in one or both roles."""
    parts, sources = [], _sources(plan, bool(jax.tree.leaves((row.aux, col.aux))))
    for c, channel in enumerate(plan.channels):
        keep = _kept(channel, row, col)
        parts.append(Part(c, channel.axis, sources.index((channel.logits, False)), keep))
        if plan.one_set:  # the same keep, so that XLA sees that both roles share their exponentials
            transposed = sources.index((channel.logits, (channel.logits, True) in sources))
            parts.append(Part(c, 1 - channel.axis, transposed, keep))
    return parts


def all_logits(plan: Plan, tile: Array, row_aux: Any, col_aux: Any) -> list[Array]:
    """Computes the logits of `all_parts`, each once."""
    aux = spread(row_aux, 1), spread(col_aux, 0)
    sources = _sources(plan, bool(jax.tree.leaves(aux)))
    return [logits(tile, *(aux[::-1] if transposed else aux)) for logits, transposed in sources]


def _sources(plan: Plan, aux: bool) -> list[tuple[Any, bool]]:
    """Lists the functions of logits, and whether rows and columns swap roles in each.

    Without auxiliaries there is nothing to tell the roles apart.
    """
    roles = (False, True) if plan.one_set and aux else (False,)
    return list(dict.fromkeys((c.logits, role) for c in plan.channels for role in roles))


def spread(tree: Any, axis: int) -> Any:
    """Expands vectors along the rows (1) or the columns (0) of a tile, ready to broadcast."""
    return jax.tree.map(lambda a: jnp.expand_dims(a, axis), tree)


def _kept(channel: Channel, row: Operand, col: Operand) -> Array:
    """Returns which pairs of a tile count."""
    row_ids, row_valid = spread((row.ids, row.valid), 1)
    col_ids, col_valid = spread((col.ids, col.valid), 0)
    keep = channel.pairs(row_ids, col_ids)
    for valid in (row_valid, col_valid):
        keep = keep if valid is None else keep & valid
    return keep


def on_axis(plan: Plan, entries: Any, axis: int) -> tuple[Any, ...]:
    """Returns the entries of the channels that have values on a side, None for the others."""
    mine = [plan.one_set or channel.axis == axis for channel in plan.channels]
    return tuple(e if m else None for e, m in zip(entries, mine, strict=True))
