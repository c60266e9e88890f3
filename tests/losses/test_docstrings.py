"""`help` of a loss answers by itself: an entry for each argument, the value, errors, a source."""

import inspect
import re

import pytest

from jaxcon import losses
from jaxcon.losses import queue

FUNCTIONS = [getattr(losses, name) for name in losses.__all__ if name.endswith("_loss")]


def entries(function, section="Args"):
    """The names that a section explains: `x:`, and both of `x, y:`."""
    text = inspect.getdoc(function)
    body = re.search(rf"^{section}:\n((?:(?: .*)?\n)+)", text + "\n", re.M)
    found = re.findall(r"^  (\w+(?:, \w+)*): ", body[1], re.M) if body else []
    return {name for names in found for name in names.split(", ")}


@pytest.mark.parametrize("function", [*FUNCTIONS, queue.init, queue.push], ids=lambda f: f.__name__)
def test_every_argument_has_an_entry(function):
    assert entries(function) == set(inspect.signature(function).parameters)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_a_loss_says_what_it_returns_raises_and_where_it_is_from(function):
    text = inspect.getdoc(function)
    for section in ("Args", "Returns", "Raises", "References?"):
        assert re.search(rf"\n{section}:\n", text), section
    assert ">>> " in text
    assert entries(function, "Raises") == {"ValueError"}
