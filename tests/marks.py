"""Which values of a parameter run by default."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest


def _unless(mark: Any, by_default: Callable[[Any], bool], values: Iterable[Any]) -> list[Any]:
    """The values as parameters of a test; those that are not run by default get the mark."""
    return [v if by_default(v) else pytest.param(v, marks=mark) for v in values]


slow_unless = partial(_unless, pytest.mark.slow)
exhaustive_unless = partial(_unless, pytest.mark.exhaustive)
