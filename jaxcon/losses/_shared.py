"""What every loss does around its formula: check, flatten, mask, and reduce over devices.

A loss reads: prepare its rows, compute a value per anchor, reduce. Everything the keywords of
:mod:`jaxcon.typing` promise, the formula aside, is kept here.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jaxcon import collectives
from jaxcon.similarity import as_float
from jaxcon.streaming import PRECISION, nothing
from jaxcon.typing import Array, ArrayLike, AxisName, Exchange, Precision, ReduceFn


class Evaluation(NamedTuple):
    """How the pairs of rows are evaluated; the fields are keywords of :mod:`jaxcon.typing`."""

    block_size: int | None = None
    exchange: Exchange = collectives.gather
    precision: Precision = PRECISION


class Rows(NamedTuple):
    """A batch of checked, flattened embeddings and what belongs to each row.

    Attributes:
      z: the embeddings, each ``[batch, dim]``, of one dtype, masked rows replaced by 0.
      valid: bool ``[batch]``, the ``where`` of the call.
      weights: ``[batch]``, 0 for masked rows.
      position: int32 ``[batch]``, the global index of each row.
      ids: int ``[batch]``, the ``ids`` of the call, or ``position``.
      labels: int ``[batch]``, the ``labels`` of the call, or ``position``.
      masked: whether the call had a ``where``.
      evaluation: how to evaluate pairs.
    """

    z: tuple[Array, ...]
    valid: Array
    weights: Array
    position: Array
    ids: Array
    labels: Array
    masked: bool
    evaluation: Evaluation

    @property
    def dtype(self) -> Any:
        """The dtype in which to compute."""
        return self.z[0].dtype


def prepare(
    embeddings: dict[str, ArrayLike],
    *,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    evaluation: Evaluation | None = None,
    renumber: bool = True,
) -> Rows:
    """Checks the arguments that the losses share and brings them into one form.

    Args:
      embeddings: the embeddings by argument name, each ``[batch, *features]``.
      axis_name, where, weights, ids, labels: as in :mod:`jaxcon.typing`.
      evaluation: for losses over pairs.
      renumber: whether ids of more than 32 bits may become others; not where they outlive the call or
        are compared with ids that come by another way.

    Raises:
      ValueError: naming the argument, what came and what was expected.
    """
    collectives.check_bound(axis_name)
    z = {name: as_float(replicate(value), name) for name, value in embeddings.items()}
    first = next(iter(z))
    for name, value in z.items():
        if value.ndim < 2:
            raise ValueError(
                f"{name} must be [batch, *features], got shape {value.shape}; "
                f"a single embedding is {name}[None]"
            )
        if value.shape != z[first].shape:
            raise ValueError(
                f"{name} must have the shape of {first}, {z[first].shape}, got {value.shape}: "
                "row i of both is a pair"
            )
    batch = z[first].shape[0]
    dtype = jnp.result_type(*z.values())
    valid = row_values(where, "where", batch, bool)
    valid = jnp.ones(batch, bool) if valid is None else valid
    weights = row_values(weights, "weights", batch, dtype)
    weights = jnp.ones(batch, dtype) if weights is None else weights
    position = collectives.row_index(batch, axis_name)
    ids = row_values(ids, "ids", batch, int, renumber=renumber)
    labels = row_values(labels, "labels", batch, int)
    return Rows(
        z=tuple(mask_rows(flatten(value.astype(dtype)), valid) for value in z.values()),
        valid=valid,
        weights=jnp.where(valid, weights, 0),
        position=position,
        ids=position if ids is None else ids,
        labels=position if labels is None else labels,
        masked=where is not None,
        evaluation=_checked(evaluation or Evaluation()),
    )


def _checked(evaluation: Evaluation) -> Evaluation:
    if evaluation.exchange not in (collectives.gather, collectives.ring):
        raise ValueError(
            f"exchange must be collectives.gather or collectives.ring, got {evaluation.exchange!r}"
        )
    precision = evaluation.precision
    if not isinstance(precision, lax.Precision) and precision != jnp.bfloat16:
        raise ValueError(
            f"precision must be a jax.lax.Precision or jnp.bfloat16, got {precision!r}"
        )
    return evaluation


def flatten(z: Array) -> Array:
    """[batch, *features] -> [batch, dim]."""
    return z.reshape(z.shape[0], math.prod(z.shape[1:]))


def mask_rows(z: Array, valid: Array) -> Array:
    """Replaces masked rows by 0 before anything reads them, so that NaN cannot reach a gradient."""
    return jnp.where(valid.reshape(-1, *(1,) * (z.ndim - 1)), z, 0)


def row_values(
    value: ArrayLike | None, name: str, batch: int, dtype: Any, *, renumber: bool = True
) -> Array | None:
    """``value`` as an array ``[batch]`` of ``dtype``; bool and int arguments are not cast.

    ``renumber``: whether integers that do not fit may become others, equal where they are equal.
    """
    if value is None:
        return None
    if dtype is int:
        value = as_integers(value, name, renumber=renumber)
    value = jnp.asarray(replicate(value))
    if value.shape != (batch,):
        hint = "; for multi-hot labels see docs/coming_from_pytorch.md" if name == "labels" else ""
        raise ValueError(
            f"{name} must have shape ({batch},), one value a row of the embeddings, got {value.shape}"
            + hint
        )
    if dtype is bool and value.dtype != jnp.bool_:
        raise ValueError(f"{name} must be of bool dtype, got {value.dtype}")
    return value if dtype in (bool, int) else value.astype(dtype)


def as_integers(value: ArrayLike, name: str, *, renumber: bool = False, dtype: Any = None) -> Array:
    """``value`` as an array of integers, equal where its own are equal.

    JAX keeps 32 bits of an integer unless ``jax_enable_x64`` is set, and drops the others in silence:
    5 and 5 + 2^32 become one label. NumPy's and Python's integers that do not fit are renumbered, or
    refused where other calls must know them by the same number. ``dtype``: what they must fit into, if
    not what JAX makes of them.
    """
    given = value if isinstance(value, jax.Array) else np.asarray(value)
    of_python = given.dtype == object and all(isinstance(v, int) for v in np.ravel(given))  # 2**70
    if not of_python and not jnp.issubdtype(given.dtype, jnp.integer):
        raise ValueError(f"{name} must be of integer dtype, got {given.dtype}")
    kept = dtype or jax.dtypes.canonicalize_dtype(np.int64 if of_python else given.dtype)
    if isinstance(given, jax.Array):
        if jnp.promote_types(given.dtype, kept) != kept:
            raise ValueError(
                f"{name} must be of {kept}, got {given.dtype}, whose numbers need not fit; cast them "
                f"if they do, {name}.astype({str(kept)!r})"
            )
        return given.astype(kept)
    if not given.size:
        return jnp.asarray(given, kept)
    limits = jnp.iinfo(kept)
    wide = next((v for v in (given.min(), given.max()) if not limits.min <= v <= limits.max), None)
    if wide is None:
        return jnp.asarray(given, kept)
    if renumber:
        return jnp.asarray(np.unique(given, return_inverse=True)[1].reshape(given.shape))
    raise ValueError(
        f"{name} must fit into {kept}, got {wide}; renumber all ids together, "
        "np.unique(ids, return_inverse=True)[1], or set jax_enable_x64"
    )


def required(labels: ArrayLike | None) -> ArrayLike:
    """The labels of a loss that means nothing without."""
    if labels is None:
        raise ValueError("labels must be integers, one a row of z, got None")
    return labels


def flag(value: Any, name: str) -> bool:
    """A setting that is True or False, and known when the loss is traced."""
    if isinstance(value, Tracer):
        raise ValueError(
            f"{name} must be True or False when the loss is traced, got a traced value; under jax.jit "
            f"make it static (static_argnames={name!r})"
        )
    concrete = np.asarray(value)
    if concrete.ndim or concrete.dtype.kind not in "biu" or concrete not in (0, 1):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return bool(concrete)


def positive(value: ArrayLike, name: str, dtype: Any) -> Array:
    """A positive scalar setting, such as the temperature, in ``dtype``; checked when concrete."""
    return setting(value, name, dtype, lambda v: v > 0, "a positive number")


def setting(
    value: ArrayLike, name: str, dtype: Any, admissible: Any = np.isfinite, expected: str = "finite"
) -> Array:
    """A scalar setting in ``dtype``. A concrete one that is not admissible, or NaN, is refused."""
    if isinstance(value, Tracer):
        if value.size != 1:
            raise ValueError(f"{name} must be {expected} (a scalar), got shape {value.shape}")
    else:
        concrete = np.asarray(value)
        number = np.issubdtype(concrete.dtype, np.number) or jnp.issubdtype(
            concrete.dtype, jnp.floating
        )
        if (
            concrete.size != 1
            or not number
            or not (np.isfinite(concrete) & admissible(concrete)).all()
        ):
            raise ValueError(f"{name} must be {expected} (a finite scalar), got {value}")
    return jnp.asarray(value, dtype).reshape(())


def reduce_anchors(
    values: Array,
    weights: Array,
    valid: Array,
    *,
    reduce_fn: ReduceFn,
    axis_name: AxisName,
) -> Array:
    """Reduces values per anchor as ``reduce_fn`` says; see :mod:`jaxcon.typing`.

    The sums are taken over all devices before they are divided: on devices with unequal numbers of
    valid rows, the average of the devices' means is not the mean.
    """
    values = jnp.where(valid, values, 0)
    if reduce_fn is None:
        return values
    weights = jnp.where(valid, weights, 0)
    total = jnp.sum(weights * values)
    return reduce_total(total, weights, reduce_fn=reduce_fn, axis_name=axis_name)


def reduce_total(
    total: Array, weights: Array, *, reduce_fn: ReduceFn, axis_name: AxisName
) -> Array:
    """Reduces this device's weighted sum; ``weights`` are those of its terms."""
    if reduce_fn is jnp.sum:
        return collectives.sum(total, axis_name)
    if reduce_fn is not jnp.mean:
        raise ValueError(
            f"reduce_fn must be jnp.mean, jnp.sum or None, got {reduce_fn!r}; for another reduction "
            "take reduce_fn=None and reduce the values per anchor yourself"
        )
    total, weight = collectives.sum((total, jnp.sum(weights)), axis_name)
    return total / jnp.where(weight == 0, 1, weight)


def positive_and_rest(positive: Array, rest: Array) -> Array:
    """``-log(e^p / (e^p + e^r))`` of a positive's logit p and the others' log-sum-exp r.

    As softplus(r - p): on a well-aligned pair the usual ``logsumexp(all) - p`` is the difference of
    two equal numbers, its value may be negative, and its gradient is rounding noise.
    """
    return jax.nn.softplus(rest - positive)


def has_any(lse: Array) -> Array:
    """Whether a log-sum-exp of :mod:`jaxcon.streaming` had any pair."""
    return ~(lse <= nothing(lse.dtype) / 2)  # so put, NaN counts and stays visible


def replicate(value: ArrayLike) -> ArrayLike:
    """Gathers an array that is sharded over Explicit mesh axes onto every device.

    There a product of two sharded operands is refused by JAX, which leaves the choice to the caller;
    this choice is correct but not parallel. For speed use ``axis_name`` under ``jax.shard_map``.
    """
    mesh = collectives.explicit_mesh(value)
    return value if mesh is None else collectives.replicate_on(mesh, value)
