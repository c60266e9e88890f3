"""The memory of a compiled program, which the compiler knows exactly before it runs.

>>> import jax
>>> import jax.numpy as jnp
>>> program = jax.jit(lambda x: x @ x.T).lower(jnp.ones((8, 2))).compile()
>>> memory_of(program).arguments, memory_of(program).results
(64, 256)
"""

from typing import Any, NamedTuple


class Memory(NamedTuple):
    """Bytes on one device.

    Attributes:
      arguments: bytes of what the program is given.
      results: bytes of what it returns.
      temporaries: bytes that it holds in addition while it runs.
      donated: the part of the results that overwrites arguments.
    """

    arguments: int
    results: int
    temporaries: int
    donated: int

    @property
    def total(self) -> int:
        """The most that is held at any time."""
        return self.arguments + self.results + self.temporaries - self.donated


def memory_of(program: Any) -> Memory:
    """Returns the memory of a compiled program.

    Args:
      program: `jitted.lower(...).compile()`.

    Returns:
      Its bytes on each device.
    """
    found = program.memory_analysis()
    return Memory(
        found.argument_size_in_bytes,
        found.output_size_in_bytes,
        found.temp_size_in_bytes,
        found.alias_size_in_bytes,
    )
