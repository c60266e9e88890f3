"""The rows of a loss: checked, flattened, masked, with what belongs to each.

Every loss reads: prepare its rows, compute one value per anchor, reduce. What the keywords of
`jaxcon.typing` promise about the rows is kept here.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcon import collectives
from jaxcon.similarity import as_float
from jaxcon.streaming import PRECISION
from jaxcon.typing import Array, ArrayLike, AxisName, Exchange, Precision


class Evaluation(NamedTuple):
    """How the pairs of rows are evaluated; the fields are keywords of `jaxcon.typing`."""

    block_size: int | None = None
    exchange: Exchange = None
    precision: Precision = None


class Rows(NamedTuple):
    """A batch of checked, flattened embeddings and what belongs to each row.

    Attributes:
      z: the embeddings, each `[batch, dim]`, of one dtype, masked rows replaced by 0.
      valid: bool `[batch]`, the `where` of the call.
      weights: `[batch]`, 0 for masked rows.
      position: int32 `[batch]`, the global index of each row.
      ids: int `[batch]`, the `ids` of the call, or `position`.
      labels: int `[batch]`, the `labels` of the call, or `position`.
      masked: whether the call had a `where`.
      axis_name: the mapped axis over whose devices the batch is spread.
      evaluation: how to evaluate pairs.
    """

    z: tuple[Array, ...]
    valid: Array
    weights: Array
    position: Array
    ids: Array
    labels: Array
    masked: bool
    axis_name: AxisName
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
      embeddings: the embeddings by argument name, each `[batch, *features]`.
      axis_name, where, weights, ids, labels: as in `jaxcon.typing`.
      evaluation: for losses over pairs.
      renumber: whether ids of more than 32 bits may be replaced by others; not if they outlive the
        call or are compared with ids from elsewhere.

    Raises:
      ValueError: naming the argument, what came and what was expected.
    """
    collectives.check_bound(axis_name)
    given = {name: collectives.replicated(value) for name, value in embeddings.items()}
    shapes = {name: jnp.shape(value) for name, value in given.items()}
    first = next(iter(shapes))
    for name, shape in shapes.items():
        if len(shape) < 2:
            raise ValueError(
                f"{name} must be [batch, *features], got shape {shape}; "
                f"a single embedding is {name}[None]"
            )
        if shape != shapes[first]:
            raise ValueError(
                f"{name} must have the shape of {first}, {shapes[first]}, got {shape}: "
                "row i of both is a pair"
            )
    batch = shapes[first][0]
    position = collectives.row_index(batch, axis_name)
    came_in = [jnp.asarray(value).dtype for value in given.values()]
    z = {name: as_float(value, name) for name, value in given.items()}
    dtype = jnp.result_type(*z.values())
    valid = row_values(where, "where", batch, bool)
    valid = jnp.ones(batch, bool) if valid is None else valid
    weights = row_values(weights, "weights", batch, dtype)
    weights = jnp.ones(batch, dtype) if weights is None else weights
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
        axis_name=axis_name,
        evaluation=_checked(evaluation or Evaluation(), came_in),
    )


def _checked(evaluation: Evaluation, dtypes: Sequence[Any]) -> Evaluation:
    """Returns the evaluation of embeddings of the given dtypes, with its precision filled in."""
    if evaluation.exchange not in (None, collectives.gather, collectives.ring):
        raise ValueError(
            "exchange must be None, collectives.gather or collectives.ring, "
            f"got {evaluation.exchange!r}"
        )
    precision = evaluation.precision
    if precision is None:
        return evaluation._replace(precision=default_precision(dtypes))
    if not isinstance(precision, lax.Precision) and precision != jnp.bfloat16:
        raise ValueError(
            f"precision must be a jax.lax.Precision, jnp.bfloat16 or None, got {precision!r}"
        )
    return evaluation


def default_precision(dtypes: Sequence[Any]) -> lax.Precision | type:
    """Returns the precision of the products between embeddings of the given dtypes.

    Where rows come in bfloat16, that alone makes their gradients wrong by 2e-3 to 7e-3. Products in
    bfloat16 add up to 0.06 times as much at temperature 0.5, 0.3 times at 0.07 and 1.4 times at 0.02,
    and take a sixth of the passes on a TPU. To float32 rows they would be the largest error by far.
    All figures: docs/precision.md.
    """
    return jnp.bfloat16 if all(dtype == jnp.bfloat16 for dtype in dtypes) else PRECISION


def two_views(rows: Rows) -> Rows:
    """Joins the 2N rows of both views, z1's first: each is an anchor and a candidate for the others."""
    twice = {
        name: jnp.tile(getattr(rows, name), 2)
        for name in ("valid", "weights", "position", "ids", "labels")
    }
    return rows._replace(z=(jnp.concatenate(rows.z),), **twice)


def flatten(z: Array) -> Array:
    """Flattens `[batch, *features]` to `[batch, dim]`."""
    return z.reshape(z.shape[0], math.prod(z.shape[1:]))


def mask_rows(z: Array, valid: Array) -> Array:
    """Replaces masked rows by 0 before anything reads them, so that NaN cannot reach a gradient."""
    return jnp.where(valid.reshape(-1, *(1,) * (z.ndim - 1)), z, 0)


def row_values(
    value: ArrayLike | None, name: str, batch: int, dtype: Any, *, renumber: bool = True
) -> Array | None:
    """Returns `value` as an array `[batch]` of `dtype`; bool and int arguments are not cast.

    `renumber`: whether integers that do not fit may be replaced by others, equal where they are equal.
    """
    if value is None:
        return None
    if dtype is int:
        value = as_integers(value, name, renumber=renumber)
    value = jnp.asarray(collectives.replicated(value))
    if value.shape != (batch,):
        hint = "; for multi-hot labels see docs/coming_from_pytorch.md" if name == "labels" else ""
        raise ValueError(
            f"{name} must have shape ({batch},), one value per row of embeddings, got {value.shape}"
            + hint
        )
    if dtype is bool and value.dtype != jnp.bool_:
        raise ValueError(f"{name} must be of bool dtype, got {value.dtype}")
    return value if dtype in (bool, int) else value.astype(dtype)


def as_integers(value: ArrayLike, name: str, *, renumber: bool = False, dtype: Any = None) -> Array:
    """Returns `value` as an array of integers that are equal where its own are equal.

    JAX keeps 32 bits of an integer unless `jax_enable_x64` is set, and silently drops the others:
    5 and 5 + 2^32 become one label. NumPy's and Python's integers that do not fit are renumbered, or
    refused where other calls must know them by the same number. `dtype`: what they must fit into, if
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
                f"{name} must be of {kept}, got {given.dtype}, whose numbers may not fit; cast them "
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
    """Returns the labels of a loss that means nothing without them."""
    if labels is None:
        raise ValueError("labels must be integers, one per row of z, got None")
    return labels
