"""Shared by the files of this package: checks of settings, sums that are wide enough."""

import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxcon.data.messages import cut


def check_number(
    name: str, value: Any, *, low: float, high: float = math.inf, open_low: bool = False
) -> None:
    """Raises a ValueError unless a setting is a finite number within its range; traced ones pass.

    Example:
      >>> check_number("clip_norm", -1, low=0, open_low=True)
      Traceback (most recent call last):
      ValueError: clip_norm: expected a finite number above 0, got -1

    Args:
      name: name of the setting.
      value: the value given.
      low: the lowest value.
      high: the bound above, itself outside the range.
      open_low: whether `low` itself is outside the range.
    """
    if isinstance(value, Tracer):
        return
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    above = number > low if open_low else number >= low
    if not (math.isfinite(number) and above and number < high):
        lower = f"above {low}" if open_low else f"of at least {low}"
        upper = "" if high == math.inf else f" and below {high}"
        raise ValueError(f"{name}: expected a finite number {lower}{upper}, got {cut(value)}")


def check_count(name: str, value: Any, *, low: int = 1) -> None:
    """Raises a ValueError unless a setting is a whole number of at least `low`.

    Example:
      >>> check_count("log_every", 0)
      Traceback (most recent call last):
      ValueError: log_every: expected a whole number of at least 1, got 0
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or int(value) < low:
        raise ValueError(f"{name}: expected a whole number of at least {low}, got {cut(value)}")


def is_inexact(leaf: Any) -> bool:
    """Returns whether an array holds real or complex numbers, rather than counts or keys."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def at_least_float32(tree: Any) -> Any:
    """Returns the tree with its real numbers in at least float32.

    Sums need this: in bfloat16 an average updated by a thousandth at a time does not move at all.

    Example:
      >>> tree = at_least_float32({"w": jnp.ones(2, jnp.bfloat16), "count": jnp.zeros((), jnp.int8)})
      >>> tree["w"].dtype, tree["count"].dtype
      (dtype('float32'), dtype('int8'))
    """

    def widen(leaf: Any) -> Any:
        if not is_inexact(leaf):
            return leaf
        return jnp.asarray(leaf, jnp.promote_types(jnp.result_type(leaf), jnp.float32))

    return jax.tree.map(widen, tree)
