"""Communication over a mapped axis; with `axis_name=None` every function is the identity.

So a loss means the same, and runs the same code, on one device and on many: it gathers the candidates,
computes with its own rows as anchors, and reduces the sums.

>>> import jax, jax.numpy as jnp
>>> from jaxcon import collectives
>>> print(collectives.gather(jnp.arange(3), None))
[0 1 2]
>>> both = jax.vmap(lambda x: collectives.gather(x, "batch"), axis_name="batch")
>>> print(both(jnp.arange(4).reshape(2, 2)))
[[0 1 2 3]
 [0 1 2 3]]
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxcon.typing import Array, ArrayLike, AxisName


def gather(x: Any, axis_name: AxisName) -> Any:
    """Concatenates the leading axis of every array of `x` over all devices: [n, ...] -> [P n, ...].

    Gradients flow back to the device that a row came from.
    """
    if size(axis_name) == 1:
        return x
    return jax.tree.map(lambda a: lax.all_gather(a, axis_name, axis=0, tiled=True), x)


def ring(x: Any, axis_name: AxisName, hops: int = 1) -> Any:
    """Moves every array of `x` to the device `hops` further along the axis, wrapping around.

    Passed to a loss as `exchange=`, it lets the candidates travel around the devices instead of being
    gathered on all of them: each holds two devices' rows at a time. Value and gradient are the same
    as with `gather`.
    """
    if axis_name is None:
        return x
    devices = size(axis_name)
    onward = [(i, (i + hops) % devices) for i in range(devices)]
    return jax.tree.map(lambda a: lax.ppermute(a, axis_name, onward), x)


def sum(x: Any, axis_name: AxisName) -> Any:
    """Sums every array of `x` over all devices."""
    if axis_name is None:
        return x
    # One by one: of several, jax 0.6 cannot transpose those that are constant.
    return jax.tree.map(lambda a: lax.psum(a, axis_name), x)


def mean(x: Any, axis_name: AxisName) -> Any:
    """Averages every array of `x` over all devices.

    An array that `jax.shard_map` knows to be equal on them is its own average, and is not sent: so are
    gradients by replicated parameters, which JAX has summed already.
    """
    if axis_name is None:
        return x
    names = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)
    tracked = varying_axes(lax.axis_index(names))  # none under pmap, vmap, or check_vma=False

    def average(a: Array) -> Array:
        over = tuple(name for name in names if name not in tracked or name in varying_axes(a))
        return lax.pmean(a, over) if over else a

    return jax.tree.map(average, x)


def size(axis_name: AxisName) -> int:
    """Returns the number of devices along the axis; 1 for `None`."""
    return 1 if axis_name is None else lax.axis_size(axis_name)


def row_index(rows: int, axis_name: AxisName) -> Array:
    """Returns the global indices of this device's rows, in the order of `gather`: int32 [rows]."""
    local = jnp.arange(rows, dtype=jnp.int32)
    return local if axis_name is None else lax.axis_index(axis_name) * rows + local


def logsumexp(x: Array, axis_name: AxisName) -> Array:
    """Computes `log sum exp` of `x` over all devices, elementwise."""
    if axis_name is None:
        return x
    shift = lax.pmax(lax.stop_gradient(x), axis_name)
    return shift + jnp.log(lax.psum(jnp.exp(x - shift), axis_name))


def own_rows(x: Array, axis_name: AxisName) -> Array:
    """Returns this device's rows of a gathered array, undoing `gather`: [P n, ...] -> [n, ...]."""
    if axis_name is None:
        return x
    rows = x.shape[0] // size(axis_name)
    return lax.dynamic_slice_in_dim(x, lax.axis_index(axis_name) * rows, rows)


def check_bound(axis_name: AxisName) -> None:
    """Raises ValueError if `axis_name` is not the name of a mapped axis here."""
    try:
        size(axis_name)
    except NameError:
        raise ValueError(
            f"axis_name={axis_name!r} is not bound here. Call the loss inside "
            f"jax.vmap(..., axis_name={axis_name!r}), jax.pmap(..., axis_name={axis_name!r}), or "
            f"jax.shard_map over a mesh with an axis of that name; on one device, or under plain jit "
            "with sharded arrays, leave axis_name=None"
        ) from None


def explicit_mesh(x: Any) -> Any:
    """Returns the mesh in the type of an array if it has Explicit axes, else None."""
    mesh = getattr(getattr(jax.typeof(x), "sharding", None), "mesh", None)
    if mesh is None or mesh.empty or AxisType.Explicit not in mesh.axis_types:
        return None
    return mesh


def put_on(mesh: Any, x: Any, spec: PartitionSpec) -> Any:
    """Spreads every array of `x` over the devices of an Explicit mesh as the spec says."""
    return jax.tree.map(lambda a: _reshard(a, NamedSharding(mesh, spec)), x)


def replicate_on(mesh: Any, x: Any) -> Any:
    """Copies the whole array to every device of an Explicit mesh."""
    return put_on(mesh, x, PartitionSpec())


def replicated(x: ArrayLike) -> ArrayLike:
    """Gathers an array that is sharded over Explicit mesh axes onto every device.

    JAX refuses a product of two such operands and leaves the choice of sharding to the caller. This one
    is right for what has no rows to spread; a loss whose rows are sharded has mapped itself over their
    axes (`jaxcon.losses._meshes`).
    """
    mesh = explicit_mesh(x)
    return x if mesh is None else replicate_on(mesh, x)


def varying_axes(x: Any) -> frozenset[str]:
    """Returns the mapped axes over whose devices an array varies, as far as shard_map tracks it."""
    kind: Any = jax.typeof(x)
    return kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else kind.vma


def to_varying(x: Array, axes: frozenset[str]) -> Array:
    """Casts the array to vary over the devices of these axes, over which it does not vary yet."""
    return _to_varying(x, tuple(axes)) if axes else x


# Names that changed since jax 0.6.2, the oldest version that the losses run on.
if hasattr(lax, "pcast"):

    def _to_varying(x: Array, axes: tuple[str, ...]) -> Array:
        return lax.pcast(x, axes, to="varying")

    _reshard = jax.sharding.reshard
else:
    _to_varying = lax.pvary  # pyright: ignore
    from jax.experimental.shard import reshard as _reshard  # pyright: ignore
