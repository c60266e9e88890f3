"""The losses in plain jnp, and the forms that a rule can make them take, for `compiled` and `device`.

Needs nothing but jax.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcon import losses
from jaxcon.streaming import rules


def _unit(z: Any) -> Any:
    return (z / jnp.linalg.norm(z, axis=1, keepdims=True)).astype(jnp.bfloat16)


def _product(u: Any, v: Any) -> Any:
    return jnp.matmul(u, v.T, preferred_element_type=jnp.float32)


def dense_clip(z1: Any, z2: Any) -> Any:
    """Computes CLIP as one writes it with jax.numpy."""
    s = _product(_unit(z1), _unit(z2)) / 0.07
    lse = jax.nn.logsumexp(s, axis=0) + jax.nn.logsumexp(s, axis=1)
    return jnp.mean(lse / 2 - jnp.diagonal(s))


def dense_ntxent(z1: Any, z2: Any) -> Any:
    """Computes NT-Xent likewise."""
    u, n = _unit(jnp.concatenate([z1, z2])), len(z1)
    s = jnp.where(jnp.eye(2 * n, dtype=bool), -jnp.inf, _product(u, u) / 0.5)
    positive = jnp.concatenate([jnp.diagonal(s, n), jnp.diagonal(s, -n)])
    return jnp.mean(jax.nn.logsumexp(s, axis=1) - positive)


def dense_siglip(z1: Any, z2: Any) -> Any:
    """Computes SigLIP likewise."""
    s = _product(_unit(z1), _unit(z2)) / 0.1 - 10.0
    sign = 2 * jnp.eye(len(z1)) - 1
    return -jnp.mean(jnp.sum(jax.nn.log_sigmoid(sign * s), axis=1))


# A loss, the same in plain jnp, and the products of N x N x dim that it cannot do without.
LOSSES: dict[str, tuple[Callable[..., Any], Callable[..., Any], int]] = {
    "clip": (losses.clip_loss, dense_clip, 4),
    "ntxent": (losses.ntxent_loss, dense_ntxent, 8),
    "siglip": (losses.siglip_loss, dense_siglip, 3),
}
LARGE = 2**60
NONE_WHOLE = {"whole_pairs": 0, "whole_pairs_of_one_set": 0}


def forms(platform: str, pairs: int) -> dict[str, rules.Rule | None]:
    """Returns the forms of a platform by name: the rule that forces each; None: the default."""
    line = rules.LINES[platform]
    found: dict[str, rules.Rule | None] = {"default": None}
    if pairs <= 8192:
        whole = {"whole_pairs": LARGE, "whole_pairs_of_one_set": LARGE}
        found["one matrix"] = rules.everywhere(line, **whole)
        one = rules.Line(line.block, line.lanes, panel_rows=line.panel_rows, tile_pairs=LARGE)
        found["one tile"] = rules.everywhere(one, **NONE_WHOLE)
    for block in (2048, 4096, 8192):
        if block <= pairs:
            squares = rules.Line(block, line.lanes, rounded=line.rounded)
            found[f"squares of {block:,}"] = rules.everywhere(squares, **NONE_WHOLE)
    for rows in (1024, 2048):
        if 4 * rows <= pairs:
            panels = rules.Line(
                line.block, line.lanes, panel_rows=rows, tile_pairs=2**26, rounded=line.rounded
            )
            found[f"panels of {rows:,}"] = rules.everywhere(panels, **NONE_WHOLE)
    return found
