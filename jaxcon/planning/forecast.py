"""What a step will need and take on machines that are not here: it is compiled for them, not run.

Example:
    >>> from jax.experimental.topologies import get_topology_desc  # doctest: +SKIP
    >>> mesh = Mesh(np.array(topologies.devices("v5e:4x4")), ("batch",))  # doctest: +SKIP
    >>> rows = NamedSharding(mesh, P("batch"))  # doctest: +SKIP
    >>> z = jax.ShapeDtypeStruct((65536, 512), jnp.bfloat16, sharding=rows)  # doctest: +SKIP
    >>> forecast(step, z, z, topology="v5e:4x4").fits  # doctest: +SKIP
    True
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from jaxcon.planning.estimates import estimate, products_flop
from jaxcon.planning.machines import MACHINES
from jaxcon.planning.memory import Memory, memory_of
from jaxcon.planning.topologies import Chip, chip_of
from jaxcon.planning.traffic import Traffic, traffic

# "Used 61.07G of 15.75G hbm", "the total memory required for HLO temporaries (38.30G) exceeds": what a
# TPU's compiler says of a program that does not fit.
_REFUSED = re.compile(r"(?:Used |temporaries \()([\d.]+)([KMGT])")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Forecast(NamedTuple):
    """What a compiled step tells of itself; all numbers are of one chip.

    Attributes:
      chip: what it was compiled for.
      devices: how many of them.
      needed: bytes that the step holds at its peak, arguments included; of a program that its compiler
        refused, what it says, at least its temporaries, or None.
      memory: how they divide; None for a program that its compiler refused.
      ms: milliseconds a step, estimated, without what is sent; None if it was refused.
      loss_ms: those of the scope "loss"; None if it was refused.
      flop: flop a step; None if it was refused.
      traffic: collectives by kind; None if it was refused.
    """

    chip: Chip
    devices: int
    needed: int | None
    memory: Memory | None = None
    ms: float | None = None
    loss_ms: float | None = None
    flop: float | None = None
    traffic: Mapping[str, Traffic] | None = None

    @property
    def fits(self) -> bool:
        """Whether the chip's memory holds it."""
        return self.memory is not None and self.memory.total <= self.chip.memory * 2**30

    @property
    def share_of_peak(self) -> float | None:
        """Of the chip's rate of products in bfloat16, what the step makes use of."""
        if not self.ms or self.flop is None:
            return None
        return self.flop / (self.ms * self.chip.rate * 1e9)

    @property
    def link_ms(self) -> float | None:
        """Milliseconds that sending takes at the full speed of the chip's links; None if unknown."""
        name = self.chip.name.split()[-1]
        speeds = [
            machine.links
            for links, machine in MACHINES.items()
            if name in links and self.devices <= machine.largest
        ]
        if self.traffic is None or not speeds:
            return None
        return sum(each.sent for each in self.traffic.values()) / speeds[0] / 1e6


def forecast(step: Any, *arguments: Any, topology: str) -> Forecast:
    """Compiles a step for machines that are not here and reads what the program says.

    Args:
      step: jitted.
      *arguments: `jax.ShapeDtypeStruct`s with shardings on all devices of `topologies.devices`.
      topology: the name of these, `v5e:4x4` say.

    Returns:
      Bytes, estimated time, flop and collectives. Of the time the part of the loss is known if the loss
      is called under `jax.named_scope("loss")`.
    """
    chip = chip_of(topology)
    devices = len(jax.tree.leaves(arguments)[0].sharding.device_set)
    try:
        program = step.lower(*arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        used = _REFUSED.search(str(error))
        return Forecast(chip, devices, int(float(used[1]) * _UNITS[used[2]]) if used else None)
    text, memory = program.as_text(), memory_of(program)
    return Forecast(
        chip,
        devices,
        memory.total,
        memory,
        ms=estimate(text, chip).ms,
        loss_ms=estimate(text, chip, scope="loss").ms,
        flop=products_flop(text),
        traffic=traffic(text, devices),
    )
