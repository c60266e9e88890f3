"""What to compute of a similarity matrix: channels, products, and the empty log-sum-exp."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxcon.streaming.rules import Cut
from jaxcon.typing import Array, ArrayLike, AxisName

PRECISION = lax.Precision.HIGHEST  # the default is TF32 on NVIDIA GPUs and bfloat16 on TPUs


def accumulator(dtype: Any) -> Any:
    """Returns the dtype in which to accumulate products of `dtype`."""
    return jnp.promote_types(dtype, jnp.float32)


def product(a: Array, b: Array, contract: tuple[int, int], precision: Any) -> Array:
    """Multiplies matrices over the given axes, accumulating in at least float32."""
    return lax.dot_general(
        a,
        b,
        (((contract[0],), (contract[1],)), ((), ())),
        precision=precision,
        preferred_element_type=accumulator(b.dtype),
    )


def similarity_logits(tile: Array, row_aux: Any, col_aux: Any) -> Array:
    """Returns the similarities themselves as logits."""
    return tile


def different_ids(row_ids: Any, col_ids: Any) -> Array:
    """Keeps the pairs with unequal ids: the negatives."""
    return row_ids != col_ids


class Channel(NamedTuple):
    """One vector to compute: a reduction of logits over the pairs to keep.

    A tile holds the products of the rows, or their squared distances where those are asked for.

    Both functions must be pointwise: they see a tile of the matrix, or its transpose, and values of its
    rows and columns that broadcast against it. Module-level functions, rather than closures made anew
    for every call, let eager calls reuse what was compiled. `pairs` must be symmetric
    (`f(a, b) == f(b, a)`): of two rows of one set, each is the other's candidate or neither is.

    Attributes:
      axis: 1 reduces over columns and gives one value per row; 0 gives one value per column.
      logits: `(tile, row_aux, col_aux) -> logits`, pointwise in the tile; the auxiliaries broadcast.
      pairs: `(row_ids, col_ids) -> bool`, which pairs count; broadcasts likewise.
      log: True for the log of the sum of the logits' exponentials; False for the plain sum.
    """

    axis: int
    logits: Callable[[Array, Any, Any], Array] = similarity_logits
    pairs: Callable[[Any, Any], Array] = different_ids
    log: bool = True


class Plan(NamedTuple):
    """The static part of a reduction.

    Attributes:
      channels: what to compute.
      one_set: whether both sides are the same kind of rows, so that a tile serves in two roles.
      precision: of the products.
      distances: whether the matrix holds the squared distances of the rows, not their products.
      bounded: whether all logits are so small that their exponentials need no shift.
      ring: a mapped axis over whose devices the columns travel.
      cuts: how a sweep cuts the sides, for each platform; see `jaxcon.streaming.rules`.
    """

    channels: tuple[Channel, ...]
    one_set: bool
    precision: Any
    distances: bool = False
    bounded: bool = False
    ring: AxisName = None
    cuts: tuple[tuple[str, Cut], ...] = ()


def nothing(dtype: Any) -> float:
    """Returns the log-sum-exp of no pairs at all: finite, so that it cannot lead to inf - inf."""
    return float(jnp.finfo(dtype).min) / 4


def log_total(total: Array, shift: ArrayLike = 0.0) -> Array:
    """Computes `log total + shift` of a sum of exponentials; `nothing`, without gradient, for 0."""
    some = total != 0  # true for NaN, which stays visible
    lse = jnp.log(jnp.where(some, total, 1)) + shift
    return jnp.where(some, lse, nothing(lse.dtype))


def masked_logsumexp(logits: Array, keep: Array, axis: int, *, bounded: bool = False) -> Array:
    """Computes `log sum exp` over the kept entries; `nothing`, with zero gradient, where none is kept.

    `bounded`: the logits are so small that their exponentials need no shift. The exponentials along
    rows and along columns are then the same, and XLA computes them once.
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
    """Returns the pairs that any of the masks keeps; each mask broadcasts to `shape`."""
    return jnp.broadcast_to(functools.reduce(jnp.logical_or, keeps), shape)
