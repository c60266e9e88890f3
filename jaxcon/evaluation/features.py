"""Shared by the evaluations: features as float rows, labels as exact numbers, errors about both."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

DECIMALS = 12  # to which cosines are compared: equal rows have equal ones, wherever they are


def as_rows(name: str, features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Checks one labelled set of features; trailing axes are flattened.

    Example:
      >>> rows, labels = as_rows("train", np.zeros((4, 8, 8, 1), np.uint8), [0, 1, 0, 1])
      >>> rows.shape, rows.dtype
      ((4, 64), dtype('float32'))

    Returns:
      Rows, in float64 if they came in that or as wide integers, else in float32; and labels as an
      array.

    Raises:
      ValueError: if features and labels do not match, there are none, a feature is not finite, or
        labels are neither whole numbers nor names.
    """
    labels = as_labels(f"{name}: labels", labels)
    if not len(labels) or labels.shape != (len(features),):
        raise ValueError(
            f"{name}: {len(features)} rows of features need as many labels, and at least one; "
            f"got labels of shape {labels.shape}"
        )
    return as_float_rows(name, features), labels


def as_float_rows(name: str, features: np.ndarray) -> np.ndarray:
    """Converts features to finite rows `[n, dim]`, in their own precision but at least float32.

    Raises:
      ValueError: if the dtype is not numeric, or a feature is not finite.
    """
    features = np.asarray(features)
    try:
        wide = np.result_type(features.dtype, np.float32)
    except TypeError:
        wide = features.dtype
    if wide not in (np.float32, np.float64):
        raise ValueError(f"{name}: features must be real numbers, got dtype {features.dtype}")
    rows = features.astype(wide).reshape(len(features), -1)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{name}: {len(bad)} rows of features are not finite, the first is row {bad[0]}; "
            "the encoder that made them has diverged"
        )
    return rows


def require_one_width(**rows: np.ndarray) -> None:
    """Raises a ValueError for sets of rows that have different numbers of features."""
    widths = {name: row.shape[1] for name, row in rows.items()}
    if len(set(widths.values())) > 1:
        told = ", ".join(f"{name} has {width}" for name, width in widths.items())
        raise ValueError(f"all rows need the same number of features; {told}")


def as_labels(name: str, labels: Any) -> np.ndarray:
    """Converts labels or ids to an array in which different ones stay different.

    Whole numbers may have any size: those that no NumPy integer holds stay Python's. Numbers in a
    float array are accepted if the float holds every whole number up to them.

    Example:
      >>> as_labels("ids", [5, 5 + 2**64]).tolist()
      [5, 18446744073709551621]

    Raises:
      ValueError: if a label is neither a whole number nor a name.
    """
    if not hasattr(labels, "dtype"):
        # NumPy would make floats of [-1, 2**63], and merge numbers.
        labels = np.array(list(labels), dtype=object)
        if all(isinstance(label, str) for label in labels.flat):
            return labels.astype(str)
    labels = np.asarray(labels)
    if labels.dtype.kind in "iubUS":
        return labels
    if labels.dtype.kind == "O":
        return _as_integers(name, labels)
    if not np.issubdtype(labels.dtype, np.floating):
        raise ValueError(f"{name} must be whole numbers, got dtype {labels.dtype}")
    exact = 2.0 ** (np.finfo(labels.dtype).nmant + 1)
    bad = ~((labels == np.floor(labels)) & (np.abs(labels) <= exact))
    if bad.any():
        raise ValueError(
            f"{name} must be whole numbers, in {labels.dtype} of at most {exact:.0f}; "
            f"got {labels[bad].flat[0]}; pass them as integers"
        )
    return labels.astype(np.int64)


def _as_integers(name: str, labels: np.ndarray) -> np.ndarray:
    try:
        whole = [operator.index(label) for label in labels.flat]
    except TypeError:
        raise ValueError(f"{name} must be whole numbers, got {str(labels.tolist())[:80]}") from None
    fits = all(-(2**63) <= label < 2**63 for label in whole)
    return np.array(whole, np.int64 if fits else object).reshape(labels.shape)


def numbered(*labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Numbers the labels of `as_labels`, int64 from 0, in their order; equal ones get equal numbers.

    All arrays share one numbering, exact whatever their dtypes: NumPy would turn int64 next to uint64
    into floats.

    Example:
      >>> first, second = numbered(np.array([7, 9]), np.array([9, 2**63], np.uint64))
      >>> first.tolist(), second.tolist()
      ([0, 1], [1, 2])

    Raises:
      ValueError: if numbers and names are mixed.
    """
    split = [np.unique(array, return_inverse=True) for array in labels]
    values = [names.tolist() for names, _ in split]
    try:
        order = sorted({value for names in values for value in names})
    except TypeError:
        raise ValueError("labels must be all numbers or all names, got both") from None
    number = {value: i for i, value in enumerate(order)}
    return tuple(
        np.array([number[value] for value in names], np.int64)[inverse]
        for names, (_, inverse) in zip(values, split, strict=True)
    )


def at_least_one(name: str, value: Any) -> int:
    """Returns a setting that counts something, as an int.

    Raises:
      ValueError: if it is not a whole number of at least 1.
    """
    try:
        count = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, got {value}") from None
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return count


def own_devices(devices: Sequence[Any] | None) -> Sequence[Any]:
    """Returns the devices to compute on, by default all that this process has; on CPUs one.

    Virtual devices of a CPU share its cores.

    Raises:
      ValueError: if there are none, or some belong to another process.
    """
    local = jax.local_devices()
    if devices is None:
        return local[:1] if local[0].platform == "cpu" else local
    if not len(devices) or any(device not in local for device in devices):
        raise ValueError(
            f"devices must be some of the {len(local)} of this process, got {list(devices)}"
        )
    return devices


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Divides rows by their lengths; rows of zeros stay zero.

    Example:
      >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
      [[0.6, 0.8], [0.0, 0.0]]
    """
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.where(largest > 0, largest, 1)  # squares neither overflow nor vanish
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def shares(values: np.ndarray, own: np.ndarray, *, tolerance: float = 1e-9) -> np.ndarray:
    """Returns, for each row of `[n, classes]`, 1 / m if its class is among the m highest, else 0.

    Values that agree to `tolerance`, relative, count as equal: sums of the same numbers in another
    order differ by a rounding error.

    Example:
      >>> shares(np.array([[0.2, 0.7, 0.7], [0.9, 0.0, 0.0]]), np.array([1, 2])).tolist()
      [0.5, 0.0]
    """
    highest = values.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        best = (values == highest) | (highest - values <= tolerance * np.abs(highest))
    return best[np.arange(len(own)), own] / best.sum(axis=1)
