"""What to compute of a similarity matrix: channels, their dense form, and the empty log-sum-exp."""

import functools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxcon.similarity import centred_product
from jaxcon.similarity.distances import squared_distances
from jaxcon.typing import Array, ArrayLike

PRECISION = lax.Precision.HIGHEST  # the default is TF32 on NVIDIA GPUs and bfloat16 on TPUs

# Of so few pairs the product is taken of centred rows, which costs a few microseconds there.
_FEW_PAIRS = 2**12


def accumulator(dtype: Any) -> Any:
    """The dtype to accumulate products of ``dtype`` in."""
    return jnp.promote_types(dtype, jnp.float32)


def at_precision(precision: Any, *rows: Array) -> tuple[Any, ...]:
    """The rows as they are multiplied, and last the precision of the products: bfloat16 rounds them."""
    if isinstance(precision, lax.Precision):
        return (*rows, precision)
    return (*(z.astype(precision) for z in rows), lax.Precision.DEFAULT)


def product(a: Array, b: Array, contract: tuple[int, int], precision: Any) -> Array:
    """Matrix product over the named axes, accumulated in float32 at least."""
    return lax.dot_general(
        a,
        b,
        (((contract[0],), (contract[1],)), ((), ())),
        precision=precision,
        preferred_element_type=accumulator(b.dtype),
    )


def similarity_logits(tile: Array, row_aux: Any, col_aux: Any) -> Array:
    """The similarities themselves as logits."""
    return tile


def different_ids(row_ids: Any, col_ids: Any) -> Array:
    """Keeps the pairs of unequal ids: the negatives."""
    return row_ids != col_ids


class Channel(NamedTuple):
    """One vector to compute: a reduction of logits over the pairs to keep.

    A tile holds the products of the rows, or their squared distances where those are asked for.

    Both functions must be pointwise: they see a tile of the matrix, or its transpose, and values of its
    rows and columns that broadcast against it. Functions of a module, rather than closures made anew
    for every call, let eager calls reuse what was compiled. ``pairs`` must not tell its arguments apart
    (``f(a, b) == f(b, a)``): of two rows of one set, each is the other's candidate or neither is.

    Attributes:
      axis: 1 reduces over columns and gives a value a row; 0 gives a value a column.
      logits: ``(tile, row_aux, col_aux) -> logits``, pointwise in the tile; the auxiliaries broadcast.
      pairs: ``(row_ids, col_ids) -> bool``, which pairs count; broadcast likewise.
      log: True for the log of the sum of the logits' exponentials; False for the plain sum.
    """

    axis: int
    logits: Callable[[Array, Any, Any], Array] = similarity_logits
    pairs: Callable[[Any, Any], Array] = different_ids
    log: bool = True


def nothing(dtype: Any) -> float:
    """The log-sum-exp of no pair at all: finite, so that no inf - inf can arise from it."""
    return float(jnp.finfo(dtype).min) / 4


def log_total(total: Array, shift: ArrayLike = 0.0) -> Array:
    """``log total + shift`` of a sum of exponentials; :func:`nothing`, without gradient, for a 0."""
    some = total != 0  # true for NaN, which stays visible
    lse = jnp.log(jnp.where(some, total, 1)) + shift
    return jnp.where(some, lse, nothing(lse.dtype))


def masked_logsumexp(logits: Array, keep: Array, axis: int, *, bounded: bool = False) -> Array:
    """``log sum exp`` over the kept entries; :func:`nothing`, with zero gradient, where none is.

    ``bounded``: the logits are so small that their exponentials need no shift. Those along rows and
    those along columns are then the same, which XLA computes once.
    """
    if bounded:
        return log_total(jnp.sum(jnp.exp(jnp.where(keep, logits, -jnp.inf)), axis=axis))
    shift = lax.stop_gradient(
        jnp.max(logits, axis=axis, keepdims=True, initial=-jnp.inf, where=keep)
    )
    some = jnp.any(keep, axis=axis)
    shift = jnp.where(jnp.expand_dims(some, axis), shift, 0)
    total = jnp.sum(jnp.exp(jnp.where(keep, logits - shift, -jnp.inf)), axis=axis)
    lse = jnp.log(jnp.where(some, total, 1)) + jnp.squeeze(shift, axis)
    return jnp.where(some, lse, nothing(logits.dtype))


def any_pair(keeps: Sequence[Array], shape: tuple[int, int]) -> Array:
    """The pairs that any of the masks keeps, each of which broadcasts to ``shape``."""
    return jnp.broadcast_to(functools.reduce(jnp.logical_or, keeps), shape)


def reduce_dense(
    x: Array,
    y: Array,
    channels: Sequence[Channel],
    row: tuple[Any, Any, Array | None],
    col: tuple[Any, Any, Array | None],
    *,
    precision: Any,
    bounded: bool = False,
    distances: bool = False,
) -> tuple[Array, ...]:
    """The channels of a whole matrix by plain operations, for any kind of differentiation.

    ``row`` and ``col`` are (ids, aux, valid), as in :func:`jaxcon.streaming.reduce_pairs`; ``bounded``
    is as in :func:`masked_logsumexp`; ``distances``: of squared distances, not of products.
    """
    row_ids, row_aux, row_valid = jax.tree.map(lambda a: a[:, None], row)
    col_ids, col_aux, col_valid = jax.tree.map(lambda a: a[None, :], col)
    valid = jnp.ones((1, 1), bool)
    for given in (row_valid, col_valid):
        valid = valid if given is None else valid & given
    shape = (x.shape[0], y.shape[0])
    keeps = [channel.pairs(row_ids, col_ids) & valid for channel in channels]
    if distances:
        tile = squared_distances(x, y, any_pair(keeps, shape), precision=precision)
    elif shape[0] * shape[1] <= _FEW_PAIRS:
        tile = centred_product(x, y, partial(product, contract=(1, 1), precision=precision))
    else:
        tile = product(x, y, (1, 1), precision)  # (n, d) . (d, m) -> (n, m)

    def reduce(channel: Channel, keep: Array) -> Array:
        logits = channel.logits(tile, row_aux, col_aux)
        keep = jnp.broadcast_to(keep, logits.shape)
        if channel.log:
            return masked_logsumexp(logits, keep, channel.axis, bounded=bounded)
        return jnp.sum(jnp.where(keep, logits, 0), axis=channel.axis)

    return tuple(map(reduce, channels, keeps))
