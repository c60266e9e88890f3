"""The text of a compiled program, taken apart: what runs, how often, on arrays of what size.

>>> import jax
>>> import jax.numpy as jnp
>>> def power(x):
...     return jax.lax.fori_loop(0, 5, lambda i, y: x @ y, x)
>>> text = jax.jit(power).lower(jnp.ones((4, 4))).compile().as_text()
>>> sum(times for op, times in executed(text) if op.opcode == "dot")
5
"""

import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_COMPUTATION = re.compile(r"^(ENTRY )?(%\S+) \(.*?\{\n(.*?)^\}", re.M | re.S)
_OPERATION = re.compile(r"^\s+(?:ROOT )?(%\S+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_ARRAY = re.compile(r"\b(pred|[a-z]\d+\w*|bf16)\[([\d,]*)\]")
_NAME = re.compile(r"%[\w.\-]+")
_BRANCHES = re.compile(
    r"(?:branch_computations=\{([^}]*)\}|true_computation=(%[\w.\-]+), false_computation=(%[\w.\-]+))"
)
_WIDTHS = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16}


class Shape(NamedTuple):
    """The dtype, as XLA names it, and the dimensions of an array."""

    dtype: str
    dims: tuple[int, ...]

    @property
    def entries(self) -> int:
        """How many numbers the array holds."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """What the array takes."""
        bits = re.search(r"\d+", self.dtype)
        width = _WIDTHS.get(self.dtype) or (int(bits[0]) / 8 if bits else 0)
        return math.ceil(width * self.entries)


class Operation(NamedTuple):
    """One line of a program.

    Attributes:
      name: of its result.
      shapes: of its result, several for a tuple.
      opcode: as XLA prints it, such as `fusion` or `while`.
      operands: the names of what it reads.
      text: the rest of the line.
      root: whether its result is that of the computation.
    """

    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    operands: tuple[str, ...]
    text: str
    root: bool

    def attribute(self, name: str) -> str | None:
        """The computation that an attribute such as `calls` or `body` names."""
        found = re.search(rf"\b{name}=(%[\w.\-]+)", self.text)
        return found[1] if found else None


class Program(NamedTuple):
    """The computations of a program by name, and which of them is run."""

    computations: dict[str, list[Operation]]
    entry: str


@functools.lru_cache(maxsize=8)
def parsed(text: str) -> Program:
    """The program that XLA printed: `jitted.lower(...).compile().as_text()`."""
    computations, entry = {}, ""
    for is_entry, name, body in _COMPUTATION.findall(text):
        lines = filter(None, map(_operation, body.splitlines()))
        computations[name] = list(lines)
        entry = name if is_entry else entry
    if not entry:
        raise ValueError("expected the text of a compiled program, got one without ENTRY")
    return Program(computations, entry)


def executed(text: str, *, fused: bool = False) -> Iterator[tuple[Operation, int]]:
    """Yields every operation that a run executes, and how often, loops counted out.

    What data decides counts at its least: of a conditional the branch that executes the fewest
    operations, of a loop that ends by what it finds no turn.

    Args:
      text: the program.
      fused: whether to yield what stands inside of fusions as well, after the fusion.
    """
    program = parsed(text)

    def within(name: str, times: int) -> Iterator[tuple[Operation, int]]:
        for op in program.computations[name]:
            yield op, times
            if op.opcode == "while":
                turns = times * _turns(program, op)
                for part in ("condition", "body"):
                    yield from within(op.attribute(part) or "", turns)
            elif op.opcode == "fusion" and fused:
                yield from within(op.attribute("calls") or "", times)
            elif op.opcode in ("call", "async-start"):
                inner = op.attribute("to_apply") or op.attribute("calls")
                yield from within(inner, times) if inner else ()
            elif op.opcode == "conditional":
                branches = [list(within(branch, times)) for branch in _branches(op)]
                yield from min(branches, key=lambda ops: sum(n for _, n in ops), default=[])

    yield from within(program.entry, 1)


def _operation(line: str) -> Operation | None:
    found = _OPERATION.match(line)
    if not found:
        return None
    name, result, opcode, rest = found.groups()
    inside, _, after = rest.partition(")")
    shapes = tuple(
        Shape(dtype, tuple(int(d) for d in dims.split(",") if d))
        for dtype, dims in _ARRAY.findall(result)
    )
    root = line.lstrip().startswith("ROOT")
    text = rest if opcode in ("constant", "parameter") else after
    return Operation(name, shapes, opcode, tuple(_NAME.findall(inside)), text, root)


def _branches(op: Operation) -> list[str]:
    found = _BRANCHES.search(op.text)
    return [] if found is None else _NAME.findall(" ".join(filter(None, found.groups())))


def _turns(program: Program, loop: Operation) -> int:
    """How often a loop runs: as XLA found out, or the constant that its condition compares with."""
    if known := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.text):
        return int(known[1])
    condition = program.computations[loop.attribute("condition") or ""]
    constants = [
        int(found[1])
        for op in condition
        if op.opcode == "constant" and (found := re.match(r"(\d+)\)", op.text))
    ]
    counts = all(
        shape.dims == () for op in condition for shape in op.shapes if op.opcode != "parameter"
    )
    return constants[0] if counts and len(constants) == 1 else 0
