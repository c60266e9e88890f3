"""What a compiled program sends between devices, read from its text.

XLA prints a program's collectives with the shape of their result, and how often a loop runs, so the
bytes that a device sends in a step can be counted without running it.
"""

import re
from typing import NamedTuple

from jaxcon.planning.programs import Operation, Shape, executed

_KINDS = ("all-gather", "reduce-scatter", "all-reduce", "collective-permute", "all-to-all")


class Traffic(NamedTuple):
    """What one kind of collective does in a step.

    Attributes:
      times: how often it runs.
      sent: bytes that leave a device.
    """

    times: int
    sent: int


def traffic(program: str, devices: int, *, at_least: int = 1) -> dict[str, Traffic]:
    """Counts a program's collectives and what each kind of them sends from a device.

    Counts as bandwidth-optimal algorithms send them: P - 1 parts of P in an all-gather, an all-to-all
    or a reduce-scatter, twice that in an all-reduce. An operation in a loop counts as often as it runs.

    Args:
      program: `jitted.lower(...).compile().as_text()`.
      devices: the number P of devices that exchange; of an operation that says so itself, its own.
      at_least: bytes; collectives with smaller results are left out.

    Returns:
      By operation, in alphabetical order, for those operations that occur.
    """
    found: dict[str, Traffic] = {}
    for op, times in executed(program):
        kind = op.opcode.removesuffix("-start")
        if kind not in _KINDS or not times:
            continue
        size = sum(shape.bytes for shape in _results(op, kind))
        if size >= at_least:
            before = found.get(kind, Traffic(0, 0))
            each = _sent(kind, size, _group(op) or devices)
            found[kind] = Traffic(before.times + times, before.sent + times * each)
    return dict(sorted(found.items()))


def _results(op: Operation, kind: str) -> tuple[Shape, ...]:
    """The shapes of the result; what starts an operation also returns its operands."""
    if op.opcode == kind or kind == "all-reduce":
        return op.shapes
    arrays = [shape for shape in op.shapes if shape.dims or shape.dtype != "u32"]
    return tuple(arrays[len(arrays) // 2 :])


def _group(op: Operation) -> int | None:
    """How many devices exchange with each other, as `{{0,1},{2,3}}` or `[2,2]<=[4]` says."""
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", op.text):
        return len(found[1].split(","))
    found = re.search(r"replica_groups=\[\d+,(\d+)\]", op.text)
    return int(found[1]) if found else None


def _sent(kind: str, size: int, devices: int) -> int:
    """Returns the bytes that leave a device, given those of the result."""
    if kind in ("all-gather", "all-to-all"):
        return size // devices * (devices - 1)
    if kind == "reduce-scatter":
        return size * (devices - 1)
    if kind == "all-reduce":
        return 2 * size * (devices - 1) // devices
    return size
