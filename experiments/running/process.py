"""The process of a command: what it prints, what libraries may print, on which devices it runs."""

import logging
import warnings
from collections.abc import Callable
from typing import Any

import jax

from experiments.running.options import Machine
from jaxcon.training.devices import select_accelerator


def jit_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function compiled in a hurry: for what is called once, not for what is fast."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def say(text: str) -> None:
    """Prints a line of the main process, now."""
    if jax.process_index() == 0:
        print(text, flush=True)


def quiet_libraries() -> None:
    """Leaves the console to the run: they narrate every save, and print what they raise, too.

    What Pillow warns of, such as damaged notes of a camera, names no file; what it cannot read is an
    error of ours.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    for name in ("absl", "asyncio", "orbax", "matplotlib"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def select_devices(machine: Machine) -> list[Any]:
    """Returns the devices of the run; on CPU one, unless more are asked for."""
    devices = select_accelerator(machine.accelerator, num_devices=machine.num_devices)
    single = machine.num_devices is None and jax.process_count() == 1
    return devices[:1] if single and devices[0].platform == "cpu" else devices
