"""A step of a loss, ready to be measured: in JAX and in torch."""

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcon.planning.memory import memory_of


class Step(NamedTuple):
    """A step, how its inputs are made, and how much memory it takes.

    Attributes:
      put: from float32 NumPy arrays to those of the framework; called once, not timed.
      run: from two of them to value and gradients; returns when they are ready.
      mib: from two of them to the MiB of temporaries and gradients.
    """

    put: Callable[[np.ndarray], Any]
    run: Callable[[Any, Any], tuple[Any, Any]]
    mib: Callable[[Any, Any], float]


def in_jax(loss: Callable[..., Any], *learned: Any) -> Step:
    """Makes a step of `loss(z1, z2, *learned)`, with gradients for all of them."""
    import jax

    step = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(2 + len(learned)))))
    return Step(
        jax.device_put,
        lambda z1, z2: jax.block_until_ready(step(z1, z2, *learned)),
        lambda z1, z2: compiled_mib(step, z1, z2, *learned),
    )


def compiled_mib(step: Any, *args: Any) -> float:
    """Returns the MiB of temporaries and results, which the compiled program knows exactly."""
    memory = memory_of(step.lower(*args).compile())
    return (memory.temporaries + memory.results) / 2**20


def in_torch(loss: Callable[[Any, Any], Any]) -> Step:
    """Makes a step of `loss(z1, z2)`."""
    import torch

    def run(z1: Any, z2: Any) -> tuple[Any, Any]:
        x, y = (z.detach().requires_grad_() for z in (z1, z2))
        value = loss(x, y)
        value.backward()
        return value.item(), (x.grad, y.grad)

    return Step(torch.from_numpy, run, lambda z1, z2: peak_mib(lambda: run(z1, z2)))


def peak_mib(call: Callable[[], Any]) -> float:
    """Returns the MiB by which this process's memory peaks during a call (Linux, glibc).

    Memory that was freed before is returned to the system first, so that taking it again counts.
    """
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
    before = _status("VmRSS")
    call()
    return max(0, _status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1])
