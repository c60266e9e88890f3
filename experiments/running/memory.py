"""The flags for batches and losses that do not fit into memory; docs/fitting.md compares them.

None of them changes what a run computes, but for rounding: they are options of the machine, a run can
be resumed with others, and config.json does not hold them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from experiments.running.options import Machine, flag
from jaxcon import collectives
from jaxcon.typing import Exchange

EXCHANGES: dict[str, Exchange] = {"gather": collectives.gather, "ring": collectives.ring}
_OF_PAIRS = ("exchange", "block_size")
HAS_ITS_OWN = (
    "the loss is passed in with all its settings; give it there, as in "
    "functools.partial(loss, block_size=1024)"
)


def of_pairs(machine: Machine) -> dict[str, Any]:
    """Returns the keywords with which the options have a loss over pairs evaluated.

    Example:
      >>> of_pairs(Machine(block_size=256))
      {'exchange': None, 'block_size': 256}
    """
    exchange = None if machine.exchange is None else EXCHANGES[machine.exchange]
    return {"exchange": exchange, "block_size": machine.block_size}


def refuse_of_pairs(machine: Machine, why: str) -> None:
    """Raises a ValueError for an option of losses over pairs, where there is no use for it.

    Args:
      machine: the options.
      why: what the message says after the flag and its value.
    """
    for name in _OF_PAIRS:
        if (value := getattr(machine, name)) is not None:
            raise ValueError(f"{flag(name)}={value}: {why}")


def check_chunks(machine: Machine, *, batch_size: int, devices: int) -> None:
    """Raises a ValueError if chunks do not fit the rows of a device.

    Example:
      >>> check_chunks(Machine(chunk_size=48), batch_size=256, devices=4)
      Traceback (most recent call last):
      ValueError: --chunk-size=48: expected a divisor of 64, ...; choose 32 or 64
    """
    size, rows = machine.chunk_size, batch_size // devices
    if size is None or rows % size == 0:
        return
    divisors = [n for n in range(1, rows + 1) if rows % n == 0]
    below, above = ([n for n in divisors if (n > size) == side] for side in (False, True))
    near = [*below[-1:], *above[:1]] if above else below[-2:]
    raise ValueError(
        f"--chunk-size={size}: expected a divisor of {rows}, the images of one device (a batch of "
        f"{batch_size} on {devices}); choose {' or '.join(map(str, near))}"
    )


def check_rows_apart(
    machine: Machine, init: Callable[[jax.Array], Any], parts: Mapping[str, str]
) -> None:
    """Raises a ValueError for chunks of an encoder whose outputs depend on the rest of the batch.

    Args:
      machine: the options.
      init: maps a key to the variables of the model.
      parts: the names of those that are embedded in chunks, by the names of their variables.
    """
    if machine.chunk_size is None:
        return
    for collection, trees in jax.eval_shape(init, jax.random.key(0)).items():
        for part, name in parts.items():
            if collection != "params" and jax.tree.leaves(trees.get(part)):
                raise ValueError(
                    f"--chunk-size={machine.chunk_size}: {name} has {collection}, statistics of "
                    "the whole batch, which an encoder does not see in chunks; choose "
                    "--encoder=vit, or pass in one of your own with group normalization "
                    "(docs/your_own.md)"
                )
