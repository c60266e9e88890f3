"""Which values of a parameter run by default."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def slow_unless(by_default: Callable[[Any], bool], values: Iterable[Any]) -> list[Any]:
    """The values as parameters of a test; those that are not run by default wait for `-m slow`."""
    return [v if by_default(v) else pytest.param(v, marks=pytest.mark.slow) for v in values]


def exhaustive_unless(by_default: Callable[[Any], bool], values: Iterable[Any]) -> list[Any]:
    """The values as parameters of a test; the others wait for `-m exhaustive`."""
    return [v if by_default(v) else pytest.param(v, marks=pytest.mark.exhaustive) for v in values]
