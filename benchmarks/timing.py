"""How a call is timed."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def median_ms(call: Callable[[int], Any], repeats: int) -> float:
    """Median milliseconds of ``call(k)`` for k = 0, 1, ..., after one call that compiles."""
    jax.block_until_ready(call(0))
    seconds = []
    for k in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call(k))
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds))
