"""What a compiled program sends between devices, read from its text.

XLA prints a program's collectives with the shape of their result, and how often a loop runs, so the
bytes that a device sends in a step can be counted without running it.
"""

import math
import re
from typing import NamedTuple

from jaxcon.planning.programs import Operation, Shape, executed, parsed

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
    fused, scattered = _fused(program)
    seen: set[tuple[str, str]] = set()
    for op, times in executed(program, fused=True):
        kind = op.opcode.removesuffix("-start")
        if kind not in _KINDS or not times:
            continue
        channel = re.search(r"channel_id=(\d+)", op.text)
        if op.name in fused and channel:
            # TPUs begin, carry on and end a collective in several fusions, in each of which it stands.
            if (kind, channel[1]) in seen:
                continue
            seen.add((kind, channel[1]))
        size = sum(shape.bytes for shape in _results(op, kind))
        if size >= at_least:
            group = _group(op) or devices
            if op.name in scattered:  # of what is summed up, each device keeps a part
                kind, size = "reduce-scatter", size // group
            before = found.get(kind, Traffic(0, 0))
            each = _sent(kind, size, group)
            found[kind] = Traffic(before.times + times, before.sent + times * each)
    return dict(sorted(found.items()))


def _fused(program: str) -> tuple[set[str], set[str]]:
    """The names of the operations inside of fusions, and of those in fusions that sum and scatter."""
    whole = parsed(program)
    called = {
        op.attribute("calls") or ""
        for ops in whole.computations.values()
        for op in ops
        if op.opcode == "fusion"
    }
    inside = {name: {op.name for op in whole.computations.get(name, [])} for name in called}
    scatters = [names for name, names in inside.items() if "all-reduce-scatter" in name]
    return set().union(*inside.values()), set().union(*scatters)


def _results(op: Operation, kind: str) -> tuple[Shape, ...]:
    """The shapes of the result; what starts an operation also returns its operands."""
    if op.opcode == kind or kind == "all-reduce":
        return op.shapes
    arrays = [shape for shape in op.shapes if shape.dims or shape.dtype != "u32"]
    return tuple(arrays[len(arrays) // 2 :])


def _group(op: Operation) -> int | None:
    """How many devices exchange with each other, as `{{0,1},{2,3}}`, `[2,2]<=[4]`, or axes say."""
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", op.text):
        sizes = dict(re.findall(r"('\w+')=(\d+)", found[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'\w+'", found[2]))
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
