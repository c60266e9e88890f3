"""A plain call on arrays that are sharded over Explicit mesh axes: the loss maps itself over them.

The type of such an array tells its mesh, and which axes shard its rows. So a loss that is called
without `axis_name` runs inside `jax.shard_map` on the rows of each device, with these axes as its
`axis_name`, and the result is the global one. Arrays on Auto axes do not tell: nothing happens here.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, PartitionSpec

from jaxcon import collectives
from jaxcon.losses._rows import as_integers
from jaxcon.streaming import rules

# Arguments with an entry for each row: every device gets those of its rows.
_OF_ROWS = {
    *("z", "z1", "z2", "predictions", "targets", "log_std1", "log_std2"),
    *("labels", "where", "weights", "ids"),
}
# Arguments that every device gets whole, unless they are the negatives of each anchor, and their ids.
_WHOLE = {"negatives", "negative_ids"}

F = TypeVar("F", bound=Callable[..., Any])


class Call(NamedTuple):
    """What a program of a call depends on beside its arrays.

    Attributes:
      loss: the function as it was written.
      settings: names and values of the keywords that are not arrays.
      of_rows: names of the arrays that are cut.
      mesh: the mesh in the type of the rows.
      axes: the entry of that type for the first dimension: the axes that shard it.
      rule: the rule in force, by which a form is chosen.
    """

    loss: Callable[..., Any]
    settings: tuple[tuple[str, Any], ...]
    of_rows: frozenset[str]
    mesh: Any
    axes: Any
    rule: rules.Rule


def over_mesh(loss: F) -> F:
    """Makes a loss map itself over the Explicit mesh axes that shard its rows.

    What cannot be mapped is left to the loss as it is. It says what is wrong, in the shapes of the
    whole batch; or it gathers all arrays, which is right but not parallel: where no rows are sharded,
    inside a `jax.shard_map` over other axes (JAX 0.10 cannot differentiate one within another), and
    under a `jax.vmap` over a sharded axis.

    Args:
      loss: takes `axis_name`, and arrays under the names that all losses use.
    """
    signature = inspect.signature(loss)

    @functools.wraps(loss)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        arrays = (a for a in (*args, *kwargs.values()) if isinstance(a, jax.Array))
        if any(collectives.explicit_mesh(a) is not None for a in arrays):
            planned = _planned(loss, signature.bind(*args, **kwargs).arguments)
            if planned is not None:
                with contextlib.suppress(ValueError, NotImplementedError):
                    return evaluate(*planned)
        return loss(*args, **kwargs)

    return cast(F, mapped)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def evaluate(call: Call, arrays: dict[str, Any]) -> Any:
    """Computes a loss on the rows of each device; returns what the call on one device returns.

    Under `jax.jit`, so that calls outside of it find the program again, and arrays from elsewhere
    can be put on a mesh whose devices are not known here.
    """
    settings, cut, whole = dict(call.settings), PartitionSpec(call.axes), PartitionSpec()
    per_anchor = settings.get("reduce_fn", jnp.mean) is None
    specs = {name: cut if name in call.of_rows else whole for name in arrays}
    arrays = {name: _placed(value, call.mesh, specs[name]) for name, value in arrays.items()}

    def of_device(arrays: dict[str, Any]) -> Any:
        value = call.loss(**arrays, **settings)
        if not per_anchor:
            return value
        rows = len(arrays[min(call.of_rows)])
        return jnp.split(value, len(value) // rows if rows else 1)  # one array a view

    value = jax.shard_map(
        of_device,
        mesh=call.mesh,
        in_specs=(specs,),
        out_specs=cut if per_anchor else whole,
        axis_names=frozenset(_explicit(call.mesh)),
    )(arrays)
    return jnp.concatenate(value) if per_anchor else value


def _placed(arrays: Any, mesh: Any, spec: PartitionSpec) -> Any:
    """Puts arrays on the mesh; whole ones that are on none stay where they are."""

    def place(a: Any) -> Any:
        if spec == PartitionSpec() and collectives.explicit_mesh(a) is None:
            return a  # jax 0.6 cannot transpose the way from no mesh to one
        return collectives.put_on(mesh, a, spec)

    return jax.tree.map(place, arrays)


def _planned(
    loss: Callable[..., Any], given: Mapping[str, Any]
) -> tuple[Call, dict[str, Any]] | None:
    """Sorts arguments into a call and its arrays; None: nothing tells axes, or not all fits them."""
    arrays, settings = {}, {}
    try:
        for name, value in given.items():
            if name in _OF_ROWS | _WHOLE and value is not None:
                arrays[name] = _array(value, name)
            elif name == "queue" or isinstance(value, Tracer):
                arrays[name] = value
            else:
                settings[name] = _number(value)
        hash(tuple(settings.values()))
    except (TypeError, ValueError):  # integers that JAX would truncate, or a setting that is none
        return None
    of_rows = frozenset(name for name in arrays if _is_of_rows(name, arrays))
    told = [t for t in (_axes_of_rows(arrays[name]) for name in given if name in of_rows) if t]
    batches = {np.shape(arrays[name])[:1] for name in of_rows}
    if not told or len(batches) > 1 or batches == {(0,)}:
        return None
    mesh, axes = told[0]
    if settings.get("axis_name") is not None or AxisType.Manual in mesh.axis_types:
        return None
    settings["axis_name"] = axes
    return Call(loss, tuple(settings.items()), of_rows, mesh, axes, rules.current()), arrays


def _array(value: Any, name: str) -> Any:
    """Returns an array that `jax.jit` takes without loss; raises ValueError if there is none."""
    if isinstance(value, jax.Array):
        return value
    value = np.asarray(value)
    return as_integers(value, name) if value.dtype.kind in "iuO" else value


def _number(value: Any) -> Any:
    """Returns a setting that can be compared: the number in an array of one."""
    is_array = isinstance(value, jax.Array | np.ndarray | np.generic)
    return value.item() if is_array and value.size == 1 else value


def _is_of_rows(name: str, arrays: Mapping[str, Any]) -> bool:
    """Returns whether an array has an entry for each row."""
    if name in _WHOLE and "negatives" in arrays:
        return np.ndim(arrays["negatives"]) == np.ndim(arrays["z1"]) + 1
    return name in _OF_ROWS


def _axes_of_rows(array: Any) -> tuple[Any, Any] | None:
    """Returns the mesh and the axes that shard the rows, as their type tells them."""
    mesh = collectives.explicit_mesh(array) if isinstance(array, jax.Array) else None
    if mesh is None or not np.ndim(array):
        return None
    kind: Any = jax.typeof(array)
    axes = kind.sharding.spec[0]
    return None if axes is None else (mesh, axes)


def _explicit(mesh: Any) -> list[str]:
    """Returns the names of the Explicit axes of a mesh."""
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return [name for name, kind in kinds if kind == AxisType.Explicit]
