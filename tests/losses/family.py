"""The checks that the margin, predictive and regularizer losses share, as functions of a Form."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

N, DIM = 16, 6
AXIS = "batch"
DTYPES = [
    jnp.float32,
    pytest.param(jnp.bfloat16, marks=pytest.mark.slow),
    pytest.param(jnp.float16, marks=pytest.mark.slow),
]
QUICK = {"xla_backend_optimization_level": 0}


class Form(NamedTuple):
    """A loss with its settings, and how to test it.

    Attributes:
      name: what a test calls it.
      loss: the public function, settings bound.
      formula: its NumPy loop, settings bound.
      args: the names of its embeddings; labels follow where ``labelled``.
      labelled: whether it takes labels.
      rows: the row keywords that it takes.
      normalized: whether the scale of rows is irrelevant.
    """

    name: str
    loss: Callable[..., Any]
    formula: Callable[..., Any]
    args: tuple[str, ...] = ("z",)
    labelled: bool = False
    rows: tuple[str, ...] = ("where", "weights")
    normalized: bool = True


def ids_of(forms: list[Form]) -> list[str]:
    return [form.name for form in forms]


def batch(form: Form, seed: int = 0, n: int = N, dim: int = DIM) -> tuple[list, dict]:
    """Embeddings (and labels), and row keywords with masked rows, a wholly masked device, and ids."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(n, dim))
    arrays = [centre + 0.5 * rng.normal(size=(n, dim)) for _ in form.args]
    if form.labelled:
        arrays.append(rng.integers(0, 4, n).astype(np.int32))
    where = rng.random(n) > 0.25
    where[: n // 8] = False
    rows = {
        "where": where,
        "weights": rng.uniform(0.2, 2.0, n) * (rng.random(n) > 0.15),
        "ids": rng.integers(0, n, n).astype(np.int32),
    }
    return arrays, {k: rows[k] for k in form.rows}


def plain(form: Form, n: int = N) -> dict:
    """Row keywords that change nothing."""
    rows = {"where": np.ones(n, bool), "weights": np.ones(n), "ids": np.arange(n, dtype=np.int32)}
    return {k: rows[k] for k in form.rows}


def expected(form: Form, arrays: list, rows: Mapping, held: list | None = None) -> float:
    """The formula's mean over the rows that ``where`` leaves."""
    where = rows["where"]
    kept = [a[where] for a in arrays]
    fixed = None if held is None else [a[where] for a in held]
    ids = {"ids": rows["ids"][where]} if "ids" in rows else {}
    result = form.formula(*kept, **ids, held=fixed)
    if "weights" not in rows:
        return float(result)
    values, counts = result
    w = counts * rows["weights"][where]
    return float(np.sum(w * values) / np.sum(w)) if np.sum(w) else 0.0


@functools.cache
def _compiled(form: Form) -> Callable:
    """Value and gradients for all embeddings."""
    argnums = tuple(range(len(form.args)))

    def loss(*arrays: Any, rows: Any) -> Any:
        return form.loss(*arrays, **rows)

    return jax.jit(jax.value_and_grad(loss, argnums=argnums), compiler_options=QUICK)


def evaluate(form: Form, arrays: list, rows: Mapping, dtype: Any = np.float64) -> tuple:
    """Value and gradients of the library, computed from inputs in ``dtype``."""
    with jax.enable_x64(jnp.dtype(dtype) == np.float64):
        value, grads = _compiled(form)(*cast(form, arrays, dtype), rows=dict(rows))
        return np.asarray(value), [np.asarray(g) for g in grads]


def cast(form: Form, arrays: list, dtype: Any) -> list:
    return [a.astype(dtype) if i < len(form.args) else a for i, a in enumerate(arrays)]


def check_formula(form: Form, masked: bool) -> None:
    """Value, and the gradient along random directions, of the formula."""
    arrays, rows = batch(form, seed=1)
    rows = rows if masked else plain(form)
    value, grads = evaluate(form, arrays, rows)
    np.testing.assert_allclose(value, expected(form, arrays, rows), rtol=1e-11)
    rng = np.random.default_rng(2)
    length = np.sqrt(sum(np.sum(g**2) for g in grads))
    for _ in range(2):
        moves = [rng.normal(size=g.shape) for g in grads]

        def at(step: float, moves: list = moves) -> float:
            moved = [a + step * m for a, m in zip(arrays, moves, strict=False)]
            return expected(form, moved + arrays[len(moved) :], rows, held=arrays)

        h = 1e-6  # the mean over active triplets jumps where one becomes active: stay close
        slope = (at(h) - at(-h)) / (2 * h)
        got = sum(np.sum(g * m) for g, m in zip(grads, moves, strict=True))
        np.testing.assert_allclose(got, slope, atol=1e-6 * length + 1e-9)


def check_nan_is_visible(form: Form) -> None:
    """NaN or infinity in one row that counts reaches the value."""
    arrays, _ = batch(form, seed=4)
    for poison in (np.nan, np.inf):
        for row in (0, 5):
            spoiled = [a.copy() for a in arrays]
            for a in spoiled[: len(form.args)]:
                a[row, 1] = poison
            value, _ = evaluate(form, spoiled, plain(form), np.float32)
            assert not np.isfinite(value), f"{poison} in row {row} gave {value}"


def check_extremes(form: Form, dtype: Any) -> None:
    """Finite value and gradient on degenerate batches and scales, in the dtype."""
    arrays, _ = batch(form, seed=6)
    embeddings, labels = arrays[: len(form.args)], arrays[len(form.args) :]
    extremes = {
        "zero rows": ([a * (np.arange(N) > 3)[:, None] for a in embeddings], labels, None),
        "all zero": ([np.zeros_like(a) for a in embeddings], labels, None),
        "identical rows": ([np.ones_like(a) for a in embeddings], labels, None),
        "aligned": ([embeddings[0]] * len(embeddings), labels, None),
        "no positive": (embeddings, [np.arange(N, dtype=np.int32)] * len(labels), None),
        "no negative": (embeddings, [np.zeros(N, np.int32)] * len(labels), None),
        "one row": (embeddings, labels, np.arange(N) == 2),
        "all padded": (embeddings, labels, np.zeros(N, bool)),
    }
    small, large = (1e-20, 1e20) if form.normalized else (1e-3, 1e3)
    if form.normalized and dtype == jnp.float16:
        small, large = 1e-4, 1e4
    for scale in (small, large):
        extremes[f"rows of {scale}"] = ([scale * a for a in embeddings], labels, None)
    for name, (values, classes, where) in extremes.items():
        rows = plain(form)
        if where is not None:
            rows["where"] = where
        value, grads = evaluate(form, [*values, *classes], rows, dtype)
        assert value.dtype == np.float32
        assert np.isfinite(value), f"{name}: {value}"
        for g in grads:
            assert np.isfinite(g.astype(np.float32)).all(), f"{name}: gradient"
        if name == "all padded":
            assert value == 0
            assert not any(g.any() for g in grads)


def check_devices(form: Form, mode: str, devices: int) -> None:
    """Value and gradient of one device, on ``devices``, with unequal numbers of masked rows."""
    arrays, rows = batch(form, seed=7)
    value, grads = evaluate(form, arrays, rows)
    with jax.enable_x64(True):
        got, got_grads = _MODES[mode](form, devices, arrays, rows)
        assert gap([got, *got_grads], [value, *grads]) < 1e-12


def gap(got: list, want: list) -> float:
    """Largest norm-wise relative difference."""
    return max(
        float(np.linalg.norm(np.asarray(g) - w) / max(np.linalg.norm(w), 1e-30))
        for g, w in zip(got, want, strict=True)
    )


def reference(file: str) -> Any:
    return np.load(Path(__file__).parent / "reference" / f"losses_{file}.npz", allow_pickle=False)


def _local(form: Form) -> Callable:
    def loss(arrays: Any, rows: Any) -> Any:
        embeddings, labels = arrays[: len(form.args)], arrays[len(form.args) :]

        def value(embeddings: Any) -> Any:
            return form.loss(*embeddings, *labels, **rows, axis_name=AXIS)

        return jax.value_and_grad(value)(embeddings)

    return loss


def _chunks(tree: Any, devices: int) -> Any:
    return jax.tree.map(lambda a: np.reshape(a, (devices, -1, *a.shape[1:])), tree)


def _mapped(transform: Callable, form: Form, devices: int, arrays: list, rows: dict) -> tuple:
    values, grads = transform(_local(form), devices)(*_chunks((arrays, rows), devices))
    np.testing.assert_array_equal(values, np.broadcast_to(values[0], devices))
    # Every device differentiates its copy of the value, and a row's gradient counts them all.
    return values[0], [np.asarray(g).reshape(-1, g.shape[-1]) / devices for g in grads]


def _vmap(f: Callable, devices: int) -> Callable:
    return jax.jit(jax.vmap(f, axis_name=AXIS), compiler_options=QUICK)


def _pmap(f: Callable, devices: int) -> Callable:
    return jax.pmap(f, axis_name=AXIS, devices=jax.devices()[:devices])


def _shard_map(form: Form, devices: int, arrays: list, rows: dict) -> tuple:
    mapped = jax.shard_map(
        _local(form),
        mesh=Mesh(np.array(jax.devices()[:devices]), (AXIS,)),
        in_specs=P(AXIS),
        out_specs=(P(), P(AXIS)),
    )
    return jax.jit(mapped, compiler_options=QUICK)(arrays, rows)


_MODES = {
    "vmap": functools.partial(_mapped, _vmap),
    "pmap": functools.partial(_mapped, _pmap),
    "shard_map": _shard_map,
}
