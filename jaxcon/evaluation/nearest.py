"""The nearest rows by cosine: float32 on the devices proposes them, float64 on the host decides.

A device compares a tile of queries with a tile of rows at a time and keeps the best of each query so
far, so nothing of the size of all pairs exists. Equal cosines must be told from almost equal ones,
which float32 cannot. But the error of a float32 product is bounded: whoever asks knows which queries
it could mislead, and compares for those again in float64, first with the rows that were proposed, of
which there are a few more than were asked for, and with all rows where even more might share the last
place.

>>> rows = np.eye(3, dtype=np.float32)
>>> found = propose(rows, rows[:1] + 0.1, 2, devices=jax.devices()[:1])
>>> int(found.rows[0, 0]), compared(rows, rows[:1] + 0.1, found.rows).round(4).tolist()
(0, [[0.9918, 0.0902, 0.0902]])
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcon.evaluation.features import DECIMALS

ROWS, QUERIES = 4096, 1024  # edges of a tile
SPARE = 16  # rows that are proposed beyond those asked for
_HELD = 2**14  # queries that a device holds at a time
_PAIRS = 2**22  # numbers in float64 that the host makes at a time


class Proposed(NamedTuple):
    """Rows that are about nearest to each query, the nearest first.

    Attributes:
      rows: int `[m, c]`, numbers of rows.
      cosines: float64 `[m, c]`, off by at most `error`.
      error: bound of what rounding does to a cosine; no other row is nearer than the last of these by
        more than that.
    """

    rows: np.ndarray
    cosines: np.ndarray
    error: float


def propose(
    rows: np.ndarray, queries: np.ndarray, count: int, *, devices: Sequence[Any]
) -> Proposed:
    """Finds the `count` rows of largest cosine with each query in float32, and a few more.

    Args:
      rows: `[n, dim]`, finite, of any scale in float32; in float64, squares must be in range.
      queries: `[m, dim]`, likewise.
      count: at least 1.
      devices: they share the queries.
    """
    found, cosines = _propose(_Units(rows), _Units(queries), min(count + SPARE, len(rows)), devices)
    return Proposed(found, cosines, rounding(rows.shape[1]))


def compared(rows: np.ndarray, queries: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Returns the cosines `[m, c]` of queries with rows in float64, to 12 decimals.

    Args:
      rows: `[n, dim]`, as in `propose`.
      queries: `[m, dim]`.
      numbers: int `[m, c]`, which rows to compare each query with.
    """
    cosines = np.empty(numbers.shape)
    block = max(1, _PAIRS // (numbers.shape[1] * rows.shape[1]))
    for start in range(0, len(queries), block):
        some = slice(start, start + block)
        of_rows = _unit(rows[numbers[some].ravel()]).reshape(*numbers[some].shape, -1)
        cosines[some] = (of_rows @ _unit(queries[some])[:, :, None])[:, :, 0]
    return np.round(cosines, DECIMALS)


class Places(NamedTuple):
    """The rows that take the k places of each query, and those that claim the last of them.

    Attributes:
      cosines: float64 `[m, k]`, to 12 decimals.
      labels: int `[m, k]`, the labels of those rows.
      tied: int `[m, classes]`, how many rows of each label are as near as the last.
    """

    cosines: np.ndarray
    labels: np.ndarray
    tied: np.ndarray


def all_compared(
    rows: np.ndarray, labels: np.ndarray, queries: np.ndarray, k: int, *, classes: int
) -> Places:
    """Finds the places by comparing all rows in float64, a tile at a time.

    Args:
      rows: `[n, dim]`, as in `propose`.
      labels: int `[n]`, from 0 to classes - 1.
      queries: `[m, dim]`; `[m, classes]` numbers should fit into memory.
      k: from 1 to n.
      classes: number of labels.
    """
    unit = _unit(queries)
    numbers = np.arange(len(queries))[:, None]
    cosines = np.full((len(queries), k), -np.inf)
    of_places = np.zeros((len(queries), k), np.int64)
    tied = np.zeros((len(queries), classes), np.int64)
    width = max(k, _PAIRS // max(rows.shape[1], len(queries)))
    for start in range(0, len(rows), width):
        some, own = _unit(rows[start : start + width]), labels[start : start + width]
        news = np.round(unit @ some.T, DECIMALS)  # (m, d) . (d, width) -> (m, width)
        merged = np.concatenate([cosines, news], axis=1)
        of_merged = np.concatenate([of_places, np.broadcast_to(own, news.shape)], axis=1)
        best = np.argpartition(-merged, k - 1, axis=1)[:, :k]
        before, last = cosines.min(axis=1), merged[numbers, best].min(axis=1)
        # Where the last place has become better, all that claimed it before are out; those before
        # who are as near as it is now were above it, so they had places.
        tied[last > before] = 0
        kept = (cosines == last[:, None]) & (last > before)[:, None]
        for at, numbered_labels in ((kept, of_places), (news == last[:, None], of_merged[:, k:])):
            query, place = np.nonzero(at)
            np.add.at(tied, (query, numbered_labels[query, place]), 1)
        cosines, of_places = merged[numbers, best], of_merged[numbers, best]
    return Places(cosines, of_places, tied)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Returns rows of length 1, or of zeros, in float64."""
    rows = rows.astype(np.float64)
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    rows /= np.where(lengths > 0, lengths, 1)[:, None]
    return rows


def rounding(dim: int) -> float:
    """Returns by how much a cosine of a device and one to 12 decimals can differ.

    Each of `dim` products of float32 unit rows, and each of their sums, is rounded by 2^-24 of its
    value, in whatever order they are summed, and the products sum to at most 1 (Cauchy-Schwarz); twice
    that leaves room for platforms that make float32 of several bfloat16.
    """
    return (2 * dim + 16) * 2.0**-24


class _Units(NamedTuple):
    """Rows, of which blocks of length 1 are made when they are needed."""

    rows: np.ndarray

    def block(self, start: int, size: int) -> np.ndarray:
        """Returns `size` rows in float32, with zeros beyond the last."""
        unit = _unit(self.rows[start : start + size]).astype(np.float32)
        return unit if len(unit) == size else np.pad(unit, [(0, size - len(unit)), (0, 0)])


def _propose(
    rows: _Units, queries: _Units, count: int, devices: Sequence[Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers of the `count` rows nearest in float32, and their cosines."""
    mesh = Mesh(np.array(devices), ("queries",))
    shared, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["queries"], []))
    n, m = len(rows.rows), len(queries.rows)
    width = min(ROWS, n)
    tile = min(QUERIES, -(-m // len(devices)))
    held = tile * len(devices) * min(_HELD // QUERIES, -(-m // (tile * len(devices))))
    fold = make_fold(mesh, tile)
    found, cosines = np.empty((m, count), np.int64), np.empty((m, count), np.float64)
    for first in range(0, m, held):
        block = jax.device_put(queries.block(first, held), shared)
        best: Any = (
            jax.device_put(np.full((held, count), -np.inf, np.float32), shared),
            jax.device_put(np.zeros((held, count), np.int32), shared),
        )
        for start in range(0, n, width):
            some = jax.device_put(rows.block(start, width), everywhere)
            best = fold(best, block, some, np.int32(start), np.int32(n))
        values, index = jax.device_get(best)
        some = slice(first, first + held)
        found[some], cosines[some] = index[: m - first], values[: m - first]
    return found, cosines


@functools.cache
def make_fold(mesh: Mesh, tile: int) -> Any:
    """Returns the jitted `(best, queries, rows, start, total) -> best` that takes in more rows.

    Args:
      mesh: its devices share the queries.
      tile: queries of a device that are compared with the rows at a time; divides their number.
    """
    split, whole = PartitionSpec("queries"), PartitionSpec()

    def of_tile(best: Any, queries: jax.Array, rows: jax.Array, start: Any, total: Any) -> Any:
        values, index = best
        cosines = jnp.matmul(queries, rows.T, precision=lax.Precision.HIGHEST)  # (tile, rows)
        numbers = start + jnp.arange(len(rows), dtype=jnp.int32)
        cosines = jnp.where(numbers < total, cosines, -jnp.inf)
        count = min(values.shape[1], len(rows))
        news, at = lax.top_k(cosines, count)
        values = jnp.concatenate([values, news], axis=1)
        index = jnp.concatenate([index, start + at.astype(jnp.int32)], axis=1)
        values, at = lax.top_k(values, best[0].shape[1])
        return values, jnp.take_along_axis(index, at, axis=1)

    def fold(best: Any, queries: jax.Array, rows: jax.Array, start: Any, total: Any) -> Any:
        if len(queries) == tile:
            return of_tile(best, queries, rows, start, total)
        tiles: Any = jax.tree.map(lambda x: x.reshape(-1, tile, x.shape[-1]), (best, queries))
        folded = lax.map(lambda each: of_tile(each[0], each[1], rows, start, total), tiles)
        return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), folded)

    mapped = jax.shard_map(
        fold, mesh=mesh, in_specs=((split, split), split, whole, whole, whole), out_specs=split
    )
    return jax.jit(mapped, donate_argnums=0)
