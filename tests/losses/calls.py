"""Calls of a case's loss, compiled once a case and dtype: value, gradients, values per anchor.

Compilation is most of what these tests cost, so they pass every row keyword always (neutral ones where
a test needs none) and hand the temperature in traced.
"""

import contextlib
import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.losses.case import Case


def precision(dtype: Any) -> contextlib.AbstractContextManager:
    """64-bit mode for float64, and 32-bit mode, the default, for the others."""
    return jax.enable_x64(jnp.dtype(dtype) == jnp.float64)


def cast(arrays: Mapping[str, Any], dtype: Any) -> dict[str, Any]:
    """Float arrays in `dtype` (weights in float32 at least); the others as they are."""

    def one(name: str, value: Any) -> Any:
        value = np.asarray(value)
        if not np.issubdtype(value.dtype, np.floating):
            return value
        wide = jnp.promote_types(dtype, jnp.float32) if name == "weights" else dtype
        with np.errstate(over="ignore"):
            return value.astype(wide)

    return {name: one(name, value) for name, value in arrays.items()}


def default(case: Case, keyword: str) -> Any:
    """A setting of the case, or the default of the loss's signature."""
    return case.settings.get(keyword, inspect.signature(case.loss).parameters[keyword].default)


def apply(case: Case, inputs: Mapping, rows: Mapping, temperature: Any = None, **keywords: Any):
    """The loss with the case's settings; `temperature=None` leaves the setting or the default."""
    # A copy: JAX keeps the constant that a NumPy array became in 32-bit mode, and uses it in 64-bit.
    settings = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in case.settings.items()}
    if temperature is not None:
        settings["temperature"] = temperature
    return case.loss(*inputs.values(), **rows, **settings, **keywords)


def split(case: Case, inputs: Mapping) -> tuple[dict, dict]:
    """The arguments to differentiate, and the others."""
    names = case.embeddings()
    return {k: inputs[k] for k in names}, {k: v for k, v in inputs.items() if k not in names}


def join(case: Case, embeddings: Mapping, others: Mapping) -> dict:
    """The inverse of `split`, in positional order."""
    return {k: embeddings[k] if k in embeddings else others[k] for k in case.args}


def objective(case: Case, **keywords: Any):
    """`(embeddings, others, rows, temperature) -> value`."""

    def value(embeddings: Any, others: Any, rows: Any, temperature: Any) -> Any:
        return apply(case, join(case, embeddings, others), rows, temperature, **keywords)

    return value


@functools.cache
def compiled(case: Case):
    """Value and gradients of the mean; jit keeps one executable a dtype."""
    return jax.jit(jax.value_and_grad(objective(case)))


@functools.cache
def compiled_anchors(case: Case, reduce_fn: Any = None):
    """Values per anchor, or another reduction."""
    return jax.jit(objective(case, reduce_fn=reduce_fn))


def arguments(case: Case, inputs: Mapping, rows: Mapping | None, dtype: Any, temperature: Any):
    """What the compiled functions take."""
    rows = case.neutral(len(next(iter(inputs.values())))) if rows is None else rows
    if "temperature" in case.keywords and temperature is None:
        temperature = default(case, "temperature")
    if temperature is not None:
        temperature = np.asarray(temperature, jnp.promote_types(dtype, jnp.float32))
    return *split(case, cast(inputs, dtype)), cast(rows, dtype), temperature


def evaluate(
    case: Case,
    inputs: Mapping,
    rows: Mapping | None = None,
    *,
    dtype: Any = np.float64,
    temperature: Any = None,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The loss's value and its gradient for each embedding."""
    with precision(dtype):
        value, grads = compiled(case)(*arguments(case, inputs, rows, dtype, temperature))
        return np.asarray(value), {k: np.asarray(v) for k, v in grads.items()}


def anchors(
    case: Case,
    inputs: Mapping,
    rows: Mapping | None = None,
    *,
    dtype: Any = np.float64,
    reduce_fn: Any = None,
) -> np.ndarray:
    """What `reduce_fn` gives."""
    with precision(dtype):
        return np.asarray(
            compiled_anchors(case, reduce_fn)(*arguments(case, inputs, rows, dtype, None))
        )


def gap(got: Any, expected: Any) -> float:
    """Largest norm-wise relative difference over the arrays of two trees; NaN counts as infinite."""
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
    return max((_gap(np.float64(g), np.float64(e)) for g, e in pairs), default=0.0)


def _gap(got: np.ndarray, expected: np.ndarray) -> float:
    if not (np.isfinite(got).all() and np.isfinite(expected).all()):
        return np.inf
    scale = np.linalg.norm(expected)
    return float(np.linalg.norm(got - expected) / (scale if scale else 1.0))


@contextlib.contextmanager
def attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """A function replaced for a moment: how the tests make mutants."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)
