"""What holds for all tests of the losses: the path of many rows, and an end to compiled programs."""

from pathlib import Path

import jax
import pytest

from jaxcon.streaming import rules
from tests.losses import calls, devices

_MAPPED = Path("/proc/self/maps")
_MANY = 20_000


@pytest.fixture(autouse=True, scope="package")
def _few_rows_are_treated_as_many():
    """With a `block_size` they would be normalized before the sweep, which hides the other path."""
    with rules.in_force(rules.Rule(copied_entries=0)):
        yield


@pytest.fixture(autouse=True, scope="package")
def _ranks_are_never_promoted():
    """What broadcasts says so, as people who set this option ask of what they import."""
    before = jax.config.jax_numpy_rank_promotion
    jax.config.update("jax_numpy_rank_promotion", "raise")
    yield
    jax.config.update("jax_numpy_rank_promotion", before)


@pytest.fixture(autouse=True)
def _few_programs(request):
    """Drops compiled programs before a process has more of them than the kernel lets it map.

    Every program of XLA's CPU backend maps pieces of memory. The exhaustive grid compiles thousands; at
    the kernel's limit, 65,530 mappings by default, the compiler crashes.
    """
    yield
    if not request.node.get_closest_marker("slow"):
        return  # a default run has few programs, and reading the file takes milliseconds
    if _MAPPED.exists() and _MAPPED.read_bytes().count(b"\n") > _MANY:
        devices.forget()
        calls.compiled.cache_clear()
        calls.compiled_anchors.cache_clear()
        jax.clear_caches()
