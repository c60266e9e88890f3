"""Products of matrices as accelerators take them, computed on a CPU in float32.

A CPU multiplies float32 as it is, whatever `jax.lax.Precision` says. What a TPU or an NVIDIA GPU would
make of it is emulated in the traced program: operands are rounded by `jax.lax.reduce_precision`, their
products, exact in float32, are summed in float32. Only the order of the sums is not the device's.

>>> import jax.numpy as jnp
>>> product = jnp.matmul
>>> x = jnp.full((1, 1), 1 + 2.0**-12)
>>> [float(emulated(product, m, x, x)(x, x)[0, 0]) for m in (tf32, passes(2))]
[1.0, 1.00048828125]
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jax import lax
from jax.extend import core

Multiply = Callable[[Callable[[Any, Any], Any], Any, Any], Any]


def tf32(dot: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    """TF32, what `Precision.HIGH` is on NVIDIA GPUs: operands of 10 bits of mantissa."""
    return dot(lax.reduce_precision(a, 8, 10), lax.reduce_precision(b, 8, 10))


def passes(parts: int) -> Multiply:
    """A TPU's float32: operands as sums of bfloat16, the products of parts that matter.

    Args:
      parts: 2 are three products, `Precision.HIGH`; 3 are six, `Precision.HIGHEST`.
    """

    def multiply(dot: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
        of_a, of_b = _parts(a, parts), _parts(b, parts)
        total = 0
        for order in reversed(range(parts)):  # the smallest first
            for i in range(order + 1):
                total = total + dot(of_a[i], of_b[order - i])
        return total

    return multiply


def _parts(a: Any, parts: int) -> list[Any]:
    found = []
    for _ in range(parts):
        found.append(lax.reduce_precision(a, 8, 7))
        a = a - found[-1]
    return found


def emulated(f: Callable[..., Any], multiply: Multiply, *like: Any) -> Callable[..., Any]:
    """Returns `f` with every product of matrices taken by `multiply`.

    Args:
      f: a function of arrays like `like`; without loops and branches over products, which are refused.
      multiply: gets the product as it was, `dot(a, b)`, and its operands.
      like: arrays, or their shapes.
    """
    traced, shape = jax.make_jaxpr(f, return_shape=True)(*like)
    structure = jax.tree.structure(shape)

    def run(*args: Any) -> Any:
        outputs = _evaluate(traced.jaxpr, traced.consts, jax.tree.leaves(args), multiply)
        return jax.tree.unflatten(structure, outputs)

    return run


def _evaluate(program: core.Jaxpr, consts: Sequence, args: Sequence, multiply: Multiply) -> list:
    """Evaluates a traced program, with its products taken by `multiply`."""
    known = dict(zip([*program.constvars, *program.invars], [*consts, *args], strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for eqn in program.eqns:
        values = [value(atom) for atom in eqn.invars]
        inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        if eqn.primitive.name == "dot_general":
            outputs = [multiply(partial(eqn.primitive.bind, **eqn.params), *values)]
        elif eqn.primitive.name in ("scan", "while", "cond"):
            if "dot_general" in str(eqn):
                raise ValueError(f"a product in a {eqn.primitive.name} is not emulated")
            outputs = _bound(eqn, values)
        elif inner is not None:
            closed = inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())
            outputs = _evaluate(closed.jaxpr, closed.consts, values, multiply)
        else:
            outputs = _bound(eqn, values)
        known.update(zip(eqn.outvars, outputs, strict=True))
    return [value(atom) for atom in program.outvars]


def _bound(eqn: core.JaxprEqn, values: Sequence) -> Sequence:
    outputs = eqn.primitive.bind(*values, **eqn.params)
    return outputs if eqn.primitive.multiple_results else [outputs]
