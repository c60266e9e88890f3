"""How a call is timed."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

_LEAST = 1.0  # seconds: a fresh process is slow for some steps
_MOST = 100  # steps
_LONG = 20.0  # seconds, of a step that settles at once


def median_ms(call: Callable[[int], Any], repeats: int) -> float:
    """Returns the median milliseconds of `call(k)` for k = 0, 1, ..., after one call that compiles.

    Makes at least `repeats` calls, and as many short ones as fill a second; only one call if it
    takes over 20 s.
    """
    jax.block_until_ready(call(0))
    seconds: list[float] = []
    while len(seconds) < repeats or (sum(seconds) < _LEAST and len(seconds) < _MOST):
        start = time.perf_counter()
        jax.block_until_ready(call(len(seconds)))
        seconds.append(time.perf_counter() - start)
        if seconds[0] > _LONG:
            break
    return 1e3 * float(np.median(seconds))
