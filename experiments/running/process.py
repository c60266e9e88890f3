"""The process of a command: what it prints, what libraries may print, on which devices it runs."""

import logging
import warnings
from collections.abc import Callable
from typing import Any

import jax

from experiments.running.options import Machine
from jaxcon.stores import named
from jaxcon.training.devices import select_accelerator


def jit_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function compiled quickly, for what is called once rather than fast."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def say(text: str) -> None:
    """Prints a line from the main process, at once."""
    if jax.process_index() == 0:
        print(named(text), flush=True)


def quiet_libraries() -> None:
    """Keeps libraries off the console: they narrate every save, and print what they raise.

    Pillow's warnings, such as about damaged camera notes, name no file; what it cannot read raises an
    error of ours.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    for name in ("absl", "asyncio", "orbax", "matplotlib", "gcsfs"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def select_devices(machine: Machine) -> list[Any]:
    """Returns the devices of the run; on CPU one, unless more are requested."""
    devices = select_accelerator(machine.accelerator, num_devices=machine.num_devices)
    single = machine.num_devices is None and jax.process_count() == 1
    return devices[:1] if single and devices[0].platform == "cpu" else devices
