"""MoCo's queue of negatives: the embeddings of recent batches, as a pytree with a pure update.

>>> import jax, jax.numpy as jnp
>>> from jaxcon import losses
>>> state = losses.queue.init(jax.random.key(0), size=6, dim=4)
>>> z1, z2 = jax.random.normal(jax.random.key(1), (2, 4, 4))
>>> loss = losses.info_nce_loss(z1, z2, state.z, in_batch=False)
>>> state = losses.queue.push(state, z2, ids=jnp.arange(4))
>>> print(state.ids, state.cursor)
[ 0  1  2  3 -1 -1] 4

In a step, first compute the loss, with the rows of earlier batches as negatives, then `push` the keys
of this one. The queue is replicated: under `axis_name` every device pushes the rows of all, in one
order, and `info_nce_loss` does not gather it. To keep an example's own earlier embedding from being
its negative, pass `ids=ids, negative_ids=state.ids` to the loss.

Reference:
  He et al., Momentum Contrast, 2019, https://arxiv.org/abs/1911.05722
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxcon import collectives
from jaxcon.losses._meshes import over_mesh
from jaxcon.losses._rows import as_integers, prepare
from jaxcon.similarity import l2_normalize
from jaxcon.typing import Array, ArrayLike, AxisName


class Queue(NamedTuple):
    """The state of a queue.

    Attributes:
      z: `[size, dim]`, rows of norm 1.
      ids: `[size]`, the ids they were pushed with, or -1: int32, or int64 under `jax_enable_x64`.
      cursor: int32, the entry that the next row replaces: the oldest.
    """

    z: Array
    ids: Array
    cursor: Array


def init(key: Array, size: int, dim: int, *, dtype: Any = jnp.float32) -> Queue:
    """Returns a queue of random directions, as MoCo starts it.

    Until `size` rows have been pushed, the rest are negatives that no encoder produced; on the sphere
    they are easy ones. This keeps the number of candidates, and so the scale of the loss, constant.

    Example:
      >>> import jax
      >>> state = init(jax.random.key(0), size=8, dim=4)
      >>> print(state.z.shape, f"{jnp.sum(state.z[0] ** 2):.3f}", state.ids[0], state.cursor)
      (8, 4) 1.000 -1 0

    Args:
      key: JAX PRNG key.
      size: the number of rows kept, at least that of one batch over all devices.
      dim: their width.
      dtype: a float dtype.

    Raises:
      ValueError: if size or dim is not positive.
    """
    if size < 1 or dim < 1:
        raise ValueError(f"size and dim must be positive, got size={size} and dim={dim}")
    z = l2_normalize(jax.random.normal(key, (size, dim)))
    return Queue(z.astype(dtype), jnp.full(size, -1), jnp.zeros((), jnp.int32))


@over_mesh
def push(
    queue: Queue,
    z: ArrayLike,
    *,
    ids: ArrayLike | None = None,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
) -> Queue:
    """Replaces the oldest rows of the queue with the rows of z.

    Masked rows are skipped: they neither enter nor push anything out. No gradient flows through.

    Example:
      >>> import jax
      >>> state = init(jax.random.key(0), size=3, dim=2)
      >>> state = push(state, jnp.array([[2.0, 0.0], [0.0, 2.0]]), ids=jnp.array([7, 8]))
      >>> state = push(state, jnp.array([[-1.0, 0.0], [0.0, -5.0]]), ids=jnp.array([9, 10]))
      >>> print(state.ids, state.cursor)
      [10  8  9] 1
      >>> print(state.z)
      [[ 0. -1.]
       [ 0.  1.]
       [-1.  0.]]

    Args:
      queue: the state, equal on every device.
      z: `[batch, *features]`, flattened to the width of the queue, any scale; normalized here.
      ids: int `[batch]`, not negative: the examples' ids; None stores -1.
      axis_name: mapped axis whose devices share one batch; None: this batch alone. This and the
        keywords below in full: `jaxcon.typing`.
      where: bool `[batch]`; False takes a row out, as anchor and as candidate, and it may hold NaN.
        Under `axis_name` the rows of all devices enter.

    Returns:
      The new state, equal on every device.

    Raises:
      ValueError: for arguments of another shape or dtype, or a batch that does not fit the queue.
    """
    if ids is not None:
        ids = as_integers(ids, "ids", dtype=queue.ids.dtype)  # never renumbered: they are kept
    rows = prepare({"z": z}, axis_name=axis_name, where=where, ids=ids)
    size, dim = queue.z.shape
    total = len(rows.position) * collectives.size(axis_name)
    if rows.z[0].shape[1] != dim or total > size:
        raise ValueError(
            f"the queue holds {size} rows of width {dim}, got {total} rows (over all devices) of width "
            f"{rows.z[0].shape[1]}; init a queue no smaller than the global batch, of that width"
        )
    new_ids = jnp.full_like(queue.ids, -1, shape=rows.ids.shape) if ids is None else rows.ids
    new = (l2_normalize(rows.z[0]), new_ids, rows.valid.astype(jnp.int32))
    new_z, new_ids, valid = _gather_replicated(lax.stop_gradient(new), axis_name)
    # Row k of the valid ones goes k places after the cursor; a masked one, past the end, is dropped.
    count = jnp.cumsum(valid)
    places = jnp.where(valid == 1, (queue.cursor + count - 1) % size, size)
    return Queue(
        z=queue.z.at[places].set(new_z.astype(queue.z.dtype), mode="drop"),
        ids=queue.ids.at[places].set(new_ids, mode="drop"),
        cursor=((queue.cursor + count[-1]) % size).astype(jnp.int32),
    )


def _gather_replicated(arrays: Any, axis_name: AxisName) -> Any:
    """Gathers all devices' rows, typed as equal on every device.

    `collectives.gather` gives the same rows, but shard_map takes its result for one that varies over
    devices and would refuse to return it as replicated. It accepts a sum.
    """
    if axis_name is None:
        return arrays

    def sum_of_placed(own: Array) -> Array:
        rows, devices = own.shape[0], collectives.size(axis_name)
        wide = jnp.zeros((devices, *own.shape), own.dtype).at[lax.axis_index(axis_name)].set(own)
        return collectives.sum(wide, axis_name).reshape(devices * rows, *own.shape[1:])

    return jax.tree.map(sum_of_placed, arrays)
