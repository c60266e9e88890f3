"""The public losses, and what each is called with, for `every_loss`, `compiled` and `device`.

Needs nothing but jax.
"""

import inspect
from collections.abc import Callable
from typing import Any

from jaxcon import losses


def public_losses() -> dict[str, Callable[..., Any]]:
    """Returns every loss by its name."""
    return {name: getattr(losses, name) for name in losses.__all__ if name.endswith("_loss")}


def required(loss: Callable[..., Any]) -> list[str]:
    """Returns the names of the arguments that a loss cannot do without.

    Labels are integers `[n]`, the deviations `log_std1` and `log_std2` floats `[n]`, all others
    embeddings.
    """
    return [
        name
        for name, parameter in inspect.signature(loss).parameters.items()
        if parameter.default is parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY
    ]
