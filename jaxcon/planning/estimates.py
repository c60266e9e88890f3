"""The time of a compiled program, estimated without running it.

Of a TPU's program the compiler's own cycles are added up, loops counted out. Of a GPU's program every
kernel takes the longer of its products at the full rate and its bytes at the full bandwidth, and
2.5 us to launch. Both are good for comparing two forms of one computation on one chip: *an estimate
is no measurement*.

What data decides counts at its least: a loop whose number of turns the program does not say, one that
ends by what it finds, is not counted, and of a conditional the shortest branch is.
"""

import re
from typing import NamedTuple

import numpy as np

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
    """Counts the flop of a program: two for each term of its products and convolutions, loops too."""
    shapes = {op.name: op.shapes for ops in parsed(program).computations.values() for op in ops}
    return sum(
        times * _flop(op, shapes) for op, times in executed(program, fused=True) if _is_product(op)
    )


def cycles(op: Operation) -> int | None:
    """Returns the cycles that a TPU's compiler estimates for an operation; None if it says none."""
    found = re.search(r'estimated_cycles":"(\d+)"', op.text)
    return int(found[1]) if found else None


def _is_within(op: Operation, scope: str) -> bool:
    return re.search(rf'op_name="[^"]*\b{re.escape(scope)}\b', op.text) is not None


def _cycles(program: str, chip: Chip) -> list[tuple[Operation, float, int]]:
    found = ((op, cycles(op), times) for op, times in executed(program))
    return [
        (op, count / chip.clock / 1e9, times) for op, count, times in found if count is not None
    ]


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
        return _convolution_flop(op, labels[1], labels[2], labels[3], shapes)
    found = re.search(r'lhs_contracting_dim(?:ensions|s)"?[=:][\[{]([\d,"]*)', op.text)
    left, terms = shapes[op.operands[0]][0], 1
    for axis in re.findall(r"\d+", found[1] if found else ""):
        terms *= left.dims[int(axis)]
    return 2.0 * op.shapes[0].entries * terms


def _convolution_flop(
    op: Operation, image: str, kernel: str, output: str, shapes: dict[str, tuple[Shape, ...]]
) -> float:
    """Two flop for each output and each place of the window that is not padding, as XLA counts."""
    seen, moved = (shapes[name][0] for name in op.operands[:2])
    made = op.shapes[0]
    # The gradients as NVIDIA's library is called for them, in the words of the forward convolution.
    if "convBackwardInput" in op.text:
        seen, made = made, seen
    elif "convBackwardFilter" in op.text:
        moved, made = made, moved
    places = 1
    for number, axis in enumerate(sorted(set(kernel) - {"i", "o"})):
        spans = {
            name: _window(op, name, number)
            for name in ("stride", "pad", "lhs_dilate", "rhs_dilate")
        }
        places *= _pairs(
            made.dims[output.index(axis)],
            moved.dims[kernel.index(axis)],
            seen.dims[image.index(axis)],
            before=spans["pad"],
            **{name: spans[name] or 1 for name in ("stride", "lhs_dilate", "rhs_dilate")},
        )
    rows, features = made.dims[output.index("b")], made.dims[output.index("f")]
    return 2.0 * places * rows * features * moved.dims[kernel.index("i")]


def _window(op: Operation, name: str, number: int) -> int:
    """What a convolution's window has by that name for one of its axes; 0 if it says nothing."""
    found = re.search(rf"window=\{{[^}}]*\b{name}=([^\s}}]+)", op.text)
    return int(found[1].split("x")[number].split("_")[0]) if found else 0


def _pairs(
    outputs: int,
    window: int,
    inputs: int,
    *,
    stride: int,
    before: int,
    lhs_dilate: int,
    rhs_dilate: int,
) -> int:
    """How many pairs of an output and a place of its window meet an input, along one axis."""
    at = np.arange(outputs)[:, None] * stride + np.arange(window) * rhs_dilate - before
    return int(((at >= 0) & (at <= (inputs - 1) * lhs_dilate) & (at % lhs_dilate == 0)).sum())


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
