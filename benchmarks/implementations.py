"""The losses under comparison: each returns value and gradients of one step, ready to be timed.

An entry of `IMPLEMENTATIONS[loss]` is a function `make(temperature) -> step`; packages are imported
inside, so that a process pays only for what it measures. Every entry normalizes its inputs. The
temperature is a constant, except in the entries marked "learned": these also take the gradient with
respect to the temperature (and SigLIP's bias), the way models of images and texts are trained.
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import towers
from benchmarks.steps import Step, in_jax, in_torch


def import_past_fronts(name: str, *packages: str) -> Any:
    """Imports a module, with empty ones in place of others it names that may need much more."""
    for package in packages:
        spec = importlib.util.find_spec(package)
        if spec is None:
            raise ModuleNotFoundError(f"{package} is not installed")
        front = types.ModuleType(package)
        front.__path__ = list(spec.submodule_search_locations or [])
        sys.modules[package] = front
    return importlib.import_module(name)


def jaxcon(name: str, temperature: float, **settings: Any) -> Step:
    """Makes a step of this library's loss of that name."""
    from jaxcon import losses

    return in_jax(partial(getattr(losses, name), temperature=temperature, **settings))


def jaxcon_learned(name: str, temperature: float, **scalars: float) -> Step:
    """Makes the same step with a learned temperature and other learned scalars."""
    import jax.numpy as jnp

    from jaxcon import losses

    loss = getattr(losses, name)
    learned = {"temperature": jnp.float32(temperature)}
    learned |= {name: jnp.float32(value) for name, value in scalars.items()}
    return in_jax(lambda z1, z2, scalars: loss(z1, z2, **scalars), learned)


def jnp_ntxent(temperature: float) -> Step:
    """Makes a step of NT-Xent as one would write it with jax.numpy."""
    import jax
    import jax.numpy as jnp

    def loss(z1: Any, z2: Any) -> Any:
        u = jnp.concatenate([z1, z2])
        u = u / jnp.linalg.norm(u, axis=1, keepdims=True)
        s = jnp.where(jnp.eye(len(u), dtype=bool), -jnp.inf, u @ u.T / temperature)
        pair = jnp.sum(u[: len(z1)] * u[len(z1) :], axis=1) / temperature
        return jnp.mean(jax.nn.logsumexp(s, axis=1)) - jnp.mean(pair)

    return in_jax(loss)


def jnp_clip(temperature: float, *, learned: bool = False) -> Step:
    """Makes a step of CLIP's loss as one would write it with jax.numpy, from one matrix."""
    import jax
    import jax.numpy as jnp

    def loss(z1: Any, z2: Any, temperature: Any = temperature) -> Any:
        x, y = (z / jnp.linalg.norm(z, axis=1, keepdims=True) for z in (z1, z2))
        s = x @ y.T / temperature
        both = jax.nn.logsumexp(s, axis=1) + jax.nn.logsumexp(s, axis=0)
        return jnp.mean(both / 2 - jnp.diagonal(s))

    return in_jax(loss, *([jnp.float32(temperature)] if learned else []))


def jnp_siglip(temperature: float, *, learned: bool = False) -> Step:
    """Makes a step of SigLIP as one would write it with jax.numpy."""
    import jax
    import jax.numpy as jnp

    def loss(z1: Any, z2: Any, scalars: Any = (temperature, -10.0)) -> Any:
        x, y = (z / jnp.linalg.norm(z, axis=1, keepdims=True) for z in (z1, z2))
        s = x @ y.T / scalars[0] + scalars[1]
        return jnp.sum(jax.nn.softplus(jnp.where(jnp.eye(len(x), dtype=bool), -s, s))) / len(x)

    return in_jax(loss, *([(jnp.float32(temperature), jnp.float32(-10.0))] if learned else []))


def optax_loss(z1: Any, z2: Any, temperature: float) -> Any:
    """Computes optax.losses.ntxent on both views in one batch with labels."""
    import jax.numpy as jnp
    import optax

    labels = jnp.tile(jnp.arange(len(z1)), 2)
    return optax.losses.ntxent(jnp.concatenate([z1, z2]), labels, temperature)


def optax_ntxent(temperature: float) -> Step:
    """Makes a step of `optax_loss`."""
    return in_jax(partial(optax_loss, temperature=temperature))


def torch_loss(z1: Any, z2: Any, temperature: float) -> Any:
    """Computes NT-Xent as one would write it with torch."""
    import torch
    from torch.nn import functional

    u = functional.normalize(torch.cat([z1, z2]))
    s = (u @ u.T / temperature).fill_diagonal_(float("-inf"))
    return functional.cross_entropy(s, torch.arange(len(u)).roll(len(z1)))


def torch_ntxent(temperature: float, *, compiled: bool = False) -> Step:
    """Makes a step of `torch_loss`."""
    import torch

    loss = partial(torch_loss, temperature=temperature)
    return in_torch(torch.compile(loss, dynamic=False) if compiled else loss)


def torch_clip(temperature: float, *, compiled: bool = False) -> Step:
    """Makes a step of CLIP's loss as one would write it with torch, from one matrix."""
    import torch
    from torch.nn import functional

    def loss(z1: Any, z2: Any) -> Any:
        s = functional.normalize(z1) @ functional.normalize(z2).T / temperature
        target = torch.arange(len(s))
        return (functional.cross_entropy(s, target) + functional.cross_entropy(s.T, target)) / 2

    return in_torch(torch.compile(loss, dynamic=False) if compiled else loss)


def metric_learning(temperature: float) -> Step:
    """Makes a step of pytorch-metric-learning's NTXentLoss."""
    import torch
    from pytorch_metric_learning.losses import NTXentLoss

    loss = NTXentLoss(temperature=temperature)
    return in_torch(lambda x, y: loss(torch.cat([x, y]), torch.arange(len(x)).repeat(2)))


def lightly(temperature: float) -> Step:
    """Makes a step of Lightly's NTXentLoss."""
    empty = ["lightly", "lightly.loss", "lightly.utils", "lightly.models"]
    empty += ["lightly.models.modules", "lightly.models.utils"]
    module = import_past_fronts("lightly.loss.ntx_ent_loss", *empty)
    return in_torch(module.NTXentLoss(temperature))


def open_clip(temperature: float) -> Step:
    """Makes a step of open_clip's ClipLoss."""
    from torch.nn import functional

    loss = import_past_fronts("open_clip.loss", "open_clip").ClipLoss()
    unit = functional.normalize
    return in_torch(lambda x, y: loss(unit(x), unit(y), 1 / temperature))


def open_siglip(temperature: float) -> Step:
    """Makes a step of open_clip's SigLipLoss."""
    from torch.nn import functional

    loss = import_past_fronts("open_clip.loss", "open_clip").SigLipLoss()
    unit = functional.normalize
    return in_torch(lambda x, y: loss(unit(x), unit(y), 1 / temperature, -10.0))


IMPLEMENTATIONS: dict[str, dict[str, Callable[[float], Step]]] = {
    "ntxent": {
        "jaxcon": partial(jaxcon, "ntxent_loss"),
        "jaxcon, block_size=512": partial(jaxcon, "ntxent_loss", block_size=512),
        "dense jnp": jnp_ntxent,
        "dense torch": torch_ntxent,
        "torch.compile": partial(torch_ntxent, compiled=True),
        "lightly": lightly,
        "optax": optax_ntxent,
        "pytorch-metric-learning": metric_learning,
    },
    "clip": {
        "jaxcon": partial(jaxcon, "clip_loss"),
        "jaxcon, block_size=512": partial(jaxcon, "clip_loss", block_size=512),
        "jaxcon, learned": partial(jaxcon_learned, "clip_loss"),
        "dense jnp": jnp_clip,
        "dense jnp, learned": partial(jnp_clip, learned=True),
        "dense torch": torch_clip,
        "torch.compile": partial(torch_clip, compiled=True),
        "open_clip": open_clip,
    },
    "siglip": {
        "jaxcon": partial(jaxcon, "siglip_loss"),
        "jaxcon, block_size=512": partial(jaxcon, "siglip_loss", block_size=512),
        "jaxcon, learned": partial(jaxcon_learned, "siglip_loss", bias=-10.0),
        "dense jnp": jnp_siglip,
        "dense jnp, learned": partial(jnp_siglip, learned=True),
        "open_clip": open_siglip,
    },
    "gradcache": {
        "jaxcon, cached": partial(towers.in_jaxcon, cached=True),
        "jaxcon, whole batch": partial(towers.in_jaxcon, cached=False),
        "sentence-transformers, cached": partial(towers.in_torch, cached=True),
        "torch, whole batch": partial(towers.in_torch, cached=False),
    },
}

# Products of rows x rows x dim that forward and backward need at least, and rows per pair. Of the
# gradcache entries most of the time is the network's.
FLOOR = {"ntxent": (2, 2), "clip": (4, 1), "siglip": (3, 1)}
