"""Settings of a loss: scalars that may be learned, and switches that may not."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxcon.typing import Array, ArrayLike


def flag(value: Any, name: str) -> bool:
    """Returns a setting that is True or False, and known when the loss is traced."""
    if isinstance(value, Tracer):
        raise ValueError(
            f"{name} must be True or False when the loss is traced, got a traced value; under jax.jit "
            f"make it static (static_argnames={name!r})"
        )
    concrete = np.asarray(value)
    if concrete.ndim or concrete.dtype.kind not in "biu" or concrete not in (0, 1):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return bool(concrete)


def setting(
    value: ArrayLike, name: str, dtype: Any, admissible: Any = np.isfinite, expected: str = "finite"
) -> Array:
    """Returns a scalar setting in `dtype`. Refuses a concrete one that is not admissible, or is NaN."""
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


def positive(value: ArrayLike, name: str, dtype: Any) -> Array:
    """Returns a positive scalar setting, such as the temperature, in `dtype`; checked when concrete."""
    return setting(value, name, dtype, lambda v: v > 0, "a positive number")


def inverse(temperature: ArrayLike, dtype: Any) -> tuple[Array, float | None]:
    """Returns `1 / temperature`, the scale of cosines, and the number that they then do not exceed.

    The second is None for a traced temperature: it is known before the data, or not at all.
    """
    scale = 1 / positive(temperature, "temperature", dtype)
    if isinstance(temperature, Tracer):
        return scale, None
    return scale, 1.0 / np.asarray(temperature, np.float64).item()


def is_zero(value: ArrayLike) -> bool:
    """Returns whether a setting is the plain number 0, so that its term need not be computed."""
    return isinstance(value, int | float) and value == 0
