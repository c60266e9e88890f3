"""Networks as JSON values, and back: how a run's folder says what was trained in it.

    >>> import json
    >>> from jaxcon.encoders import ConvNet
    >>> text = json.dumps(describe(ConvNet(widths=(8, 16), patch=4)))
    >>> build(json.loads(text)) == ConvNet(widths=(8, 16), patch=4)
    True

Every setting is written down, including those left at their defaults: a default may change.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jaxcon.encoders.convnet import ConvNet
from jaxcon.encoders.dual import Side
from jaxcon.encoders.heads import ProjectionHead
from jaxcon.encoders.mlp import MLP
from jaxcon.encoders.resnet import BasicBlock, BottleneckBlock, ResNet
from jaxcon.encoders.text import TextTransformer
from jaxcon.encoders.vit import ViT

_NETWORKS = (MLP, ConvNet, ResNet, ViT, TextTransformer, ProjectionHead, Side)
_BLOCKS = (BasicBlock, BottleneckBlock)
# These concern how it is trained, not what it is: flax's own fields, and the axis of the batch.
_LEFT_OUT = ("parent", "name", "axis_name")


def describe(module: nn.Module) -> dict[str, Any]:
    """Returns the type and settings of a network, and of the networks within it.

    Example:
      >>> from jaxcon.encoders import MLP
      >>> describe(MLP(widths=(8, 16), axis_name="batch", dtype=jnp.bfloat16))
      {'type': 'MLP', 'widths': [8, 16], 'dtype': 'bfloat16'}

    Args:
      module: a network of `jaxcon.encoders`; the axis of the batch is not described.

    Returns:
      JSON values.

    Raises:
      TypeError: if a network is not of jaxcon, or JSON cannot hold a setting.
    """
    if type(module) not in _NETWORKS:  # nor one derived from them: it could not be built again
        raise TypeError(f"expected one of {_names(_NETWORKS)}, got {type(module).__name__}")
    names = [field.name for field in dataclasses.fields(module) if field.name not in _LEFT_OUT]
    settings = {name: _to_json(name, getattr(module, name)) for name in names}
    return {"type": type(module).__name__, **settings}


def build(description: Mapping[str, Any]) -> Any:
    """Returns the network that was described, without an axis of the batch.

    Args:
      description: what `describe` returned.

    Raises:
      ValueError: if a type or a setting is unknown.
    """
    known = {network.__name__: network for network in _NETWORKS}
    settings = dict(description)
    name = settings.pop("type", None)
    if name not in known:
        raise ValueError(f"unknown network {name!r}: expected one of {_names(_NETWORKS)}")
    fields = {field.name for field in dataclasses.fields(known[name])}
    if unknown := sorted(settings.keys() - fields):
        raise ValueError(f"{name} has no setting {unknown[0]!r} in this version of jaxcon")
    return known[name](**{key: _from_json(key, value) for key, value in settings.items()})


def _to_json(name: str, value: Any) -> Any:
    if name == "dtype":
        return None if value is None else jnp.dtype(value).name
    if isinstance(value, nn.Module):
        return describe(value)
    if value in _BLOCKS:
        return value.__name__
    if isinstance(value, list | tuple):
        return [_to_json("", entry) for entry in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{name}: cannot be written as JSON: {value!r}")


def _from_json(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return build(value)
    if name == "dtype" and value is not None:
        return jnp.dtype(value).type
    if name == "block":
        blocks = {block.__name__: block for block in _BLOCKS}
        if value not in blocks:
            raise ValueError(f"unknown block {value!r}: expected one of {_names(_BLOCKS)}")
        return blocks[value]
    return tuple(value) if isinstance(value, list) else value


def _names(networks: Any) -> str:
    return ", ".join(network.__name__ for network in networks)
