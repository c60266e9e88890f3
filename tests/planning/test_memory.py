"""The bytes of a compiled program, against those that its shapes give."""

import jax
import jax.numpy as jnp

from jaxcon.planning.memory import memory_of

X = jax.ShapeDtypeStruct((64, 32), jnp.float32)
BYTES = 64 * 32 * 4


def test_arguments_results_and_what_lies_between():
    program = jax.jit(lambda x: (x @ x.T) @ x).lower(X).compile()
    memory = memory_of(program)
    assert (memory.arguments, memory.results, memory.donated) == (BYTES, BYTES, 0)
    assert memory.temporaries >= 64 * 64 * 4
    assert memory.total == 2 * BYTES + memory.temporaries


def test_a_donated_argument_counts_once():
    memory = memory_of(jax.jit(lambda x: x + 1, donate_argnums=0).lower(X).compile())
    assert memory.donated == BYTES
    assert memory.total == BYTES + memory.temporaries
