"""The time of a compiled program, estimated without running it.

Of a TPU's program the compiler's own cycles are added up, loops counted out. Of a GPU's program every
kernel takes the longer of its products at the full rate and its bytes at the full bandwidth, and
2.5 us to launch. Both are good for comparing two forms of one computation on one chip: *an estimate
is no measurement*.

What data decides counts at its least: a loop whose number of turns the program does not say, one that
ends by what it finds, is not counted, and of a conditional the shortest branch is.
"""

import math
import re
from typing import NamedTuple

from jaxcon.planning.programs import Operation, Program, Shape, executed, parsed
from jaxcon.planning.topologies import Chip

_LAUNCH = 2.5e-6
# What starts no kernel.
_FREE = {
    *(
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "while",
        "conditional",
        "call",
    ),
    *("after-all", "copy-start", "copy-done", "partition-id", "replica-id"),
    *("async-start", "async-update", "async-done"),
}
# Of the rate in bfloat16, those of products of float32 in a GPU's precisions.
_EXACT, _TF32 = 67 / 790, 0.5


class Estimate(NamedTuple):
    """What a run takes on one device.

    Attributes:
      ms: milliseconds.
      kernels: fusions of a TPU's program, kernels launched of a GPU's.
    """

    ms: float
    kernels: int


def estimate(program: str, chip: Chip, *, scope: str | None = None) -> Estimate:
    """Estimates the time of a program on its chip.

    Args:
      program: `jitted.lower(...).compile().as_text()`.
      chip: what it was compiled for.
      scope: only counts what a `jax.named_scope` of that name made, forward and backward. A kernel
        that does the work of several scopes counts as that of its result.

    Returns:
      The estimate.
    """
    costs = _cycles(program, chip) if chip.platform == "tpu" else _rooflines(program, chip)
    part = [(t, n) for op, t, n in costs if scope is None or _is_within(op, scope)]
    return Estimate(1e3 * sum(t * n for t, n in part), sum(n for _, n in part))


def products_flop(program: str) -> float:
    """Counts the flop of a GPU's program: two for each term of its products and convolutions."""
    whole = parsed(program)
    shapes = {op.name: op.shapes for ops in whole.computations.values() for op in ops}
    return sum(
        times * _flop(product, shapes)
        for op, times in executed(program)
        for product in _products(op, _inside(op, whole))
    )


def _is_within(op: Operation, scope: str) -> bool:
    return re.search(rf'op_name="[^"]*\b{re.escape(scope)}\b', op.text) is not None


def _cycles(program: str, chip: Chip) -> list[tuple[Operation, float, int]]:
    costs = []
    for op, times in executed(program):
        if found := re.search(r'estimated_cycles":"(\d+)"', op.text):
            costs.append((op, int(found[1]) / chip.clock / 1e9, times))
    return costs


def _rooflines(program: str, chip: Chip) -> list[tuple[Operation, float, int]]:
    whole = parsed(program)
    shapes = {op.name: op.shapes for ops in whole.computations.values() for op in ops}
    costs = []
    for op, times in executed(program):
        if op.opcode in _FREE:
            continue
        inside = _inside(op, whole)
        work = sum(
            _flop(o, shapes) / (chip.rate * 1e12 * _rate(o, shapes)) for o in _products(op, inside)
        )
        moved = _bytes(op, inside, shapes) / (chip.bandwidth * 1e12)
        costs.append((op, max(work, moved) + _LAUNCH, times))
    return costs


def _inside(op: Operation, whole: Program) -> list[Operation]:
    """What a kernel does, if it is a fusion."""
    return whole.computations.get(op.attribute("calls") or "", [])


def _products(op: Operation, inside: list[Operation]) -> list[Operation]:
    return [o for o in (inside or [op]) if _is_product(o)]


def _is_product(op: Operation) -> bool:
    if op.opcode == "custom-call":
        return "dot_dimension_numbers" in op.text or "__cudnn$conv" in op.text
    return op.opcode in ("dot", "convolution")


def _flop(op: Operation, shapes: dict[str, tuple[Shape, ...]]) -> float:
    if labels := re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", op.text):
        return _convolution_flop(op, labels[2], shapes)
    found = re.search(r'lhs_contracting_dim(?:ensions|s)"?[=:][\[{]([\d,"]*)', op.text)
    left, terms = shapes[op.operands[0]][0], 1
    for axis in re.findall(r"\d+", found[1] if found else ""):
        terms *= left.dims[int(axis)]
    return 2.0 * op.shapes[0].entries * terms


def _convolution_flop(op: Operation, labels: str, shapes: dict[str, tuple[Shape, ...]]) -> float:
    """Each entry of the output is a sum over the kernel's window and inputs, whatever is computed."""
    image, kernel = (shapes[name][0] for name in op.operands[:2])
    output = op.shapes[0]
    if "convBackwardInput" in op.text:
        output = image
    elif "convBackwardFilter" in op.text:
        kernel, output = output, kernel
    # Where the input is spread out by zeros, these are skipped.
    spread = re.search(r"lhs_dilate=([\dx]+)", op.text)
    zeros = math.prod(map(int, spread[1].split("x"))) if spread else 1
    return 2.0 * output.entries * kernel.entries / kernel.dims[labels.index("o")] / zeros


def _rate(op: Operation, shapes: dict[str, tuple[Shape, ...]]) -> float:
    """The part of the bfloat16 rate at which a product runs."""
    if shapes[op.operands[0]][0].dtype in ("bf16", "f16"):
        return 1
    return _EXACT if "highest" in op.text.lower() else _TF32


def _bytes(op: Operation, inside: list[Operation], shapes: dict[str, tuple[Shape, ...]]) -> float:
    """What a kernel reads and writes; of a slice of a buffer, the slice."""
    written = _size(op.shapes)
    if not inside:
        return written + sum(_size(shapes.get(name, ())) for name in op.operands)
    read = 0
    for parameter in inside:
        if parameter.opcode == "parameter":
            uses = [_read(o, parameter) for o in inside if parameter.name in o.operands]
            read += min(_size(parameter.shapes), sum(uses))
    for update in inside:
        if update.opcode == "dynamic-update-slice":
            written -= _size(update.shapes) - _size(shapes[update.operands[1]])
    return read + max(written, 0)


def _read(use: Operation, of: Operation) -> int:
    """What an operation of a fusion reads of one of its parameters."""
    if use.opcode in ("dynamic-slice", "slice"):
        return _size(use.shapes)
    in_place = use.opcode == "dynamic-update-slice" and use.operands[0] == of.name
    return 0 if in_place else _size(of.shapes)


def _size(shapes: tuple[Shape, ...]) -> int:
    return sum(shape.bytes for shape in shapes)
