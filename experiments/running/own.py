"""What config.json says about functions passed in: a library's name, or that it is the user's own."""

import dataclasses
import functools
import importlib.metadata
from typing import Any, TypeVar

import flax.linen as nn

from jaxcon.encoders.describe import describe
from jaxcon.encoders.dual import Side

_OF_THIS_CHECKOUT = ("jaxcon", "experiments")

Group = TypeVar("Group")


def as_named(group: Group, *, encoder: nn.Module | None, dataset: Any) -> Group:
    """Returns the options, with the names of what was passed in instead of the flags' values."""
    names = {}
    if encoder is not None:
        names["encoder"] = type(encoder).__name__
    if dataset is not None:
        names["dataset"] = dataset.name
    return dataclasses.replace(group, **names)  # pyright: ignore[reportArgumentType]


def names(dataset: Any, **handed: Any) -> dict[str, str]:
    """Returns what config.json says about it, under keys that no flag has, such as `own_encoder`.

    Args:
      dataset: the user's own, or None.
      **handed: what else was passed in, or None.
    """
    said = {f"own_{kind}": named(thing) for kind, thing in handed.items() if thing is not None}
    return said | ({} if dataset is None else {"own_dataset": f"the user's own {dataset.name}"})


def named(thing: Any) -> str:
    """Returns the name of a function or of an object's class, and whose it is.

    Example:
      >>> from jaxcon.losses import ntxent_loss
      >>> named(functools.partial(ntxent_loss, temperature=0.2))
      'jaxcon.losses.softmax.ntxent_loss(temperature=0.2)'
      >>> named(lambda z1, z2: 0)
      "the user's own <lambda>"
    """
    if isinstance(thing, functools.partial):
        given = [_setting(value) for value in thing.args]
        given += [f"{name}={_setting(value)}" for name, value in thing.keywords.items()]
        return f"{named(thing.func)}({', '.join(given)})"
    if not hasattr(thing, "__qualname__"):
        thing = type(thing)
    module, name = thing.__module__, thing.__qualname__
    if "<" in name or not _of_a_library(module):
        return f"the user's own {name.rpartition('.')[2]}"
    return f"{module}.{name}"


def _setting(value: Any) -> str:
    """Returns a setting in words that are the same in the next process: a function by its name."""
    return named(value) if callable(value) else repr(value)


def _of_a_library(module: str) -> bool:
    root = module.partition(".")[0]
    return root in _OF_THIS_CHECKOUT or root in _installed()


@functools.cache  # half a second in an environment of a hundred packages
def _installed() -> frozenset[str]:
    return frozenset(importlib.metadata.packages_distributions())


def describe_module(module: nn.Module) -> dict[str, Any]:
    """Returns a network as JSON values: those of jaxcon so that they can be rebuilt, others by name.

    The settings of others are included, so that a run is not resumed with different ones.
    """
    if type(module) is Side:  # a network of jaxcon, whatever encoder it contains
        whole = describe(module.clone(encoder=None))
        return whole | {"encoder": describe_module(module.encoder)}
    try:
        return describe(module)
    except TypeError:
        fields = [f.name for f in dataclasses.fields(module) if f.name not in ("parent", "name")]
        settings = {name: str(getattr(module, name)) for name in fields}
        return {"type": type(module).__name__, "own": named(module), **settings}
