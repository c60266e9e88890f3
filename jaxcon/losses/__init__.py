"""The losses: pure functions from embeddings to a scalar, the same on one device and on many.

>>> import jax
>>> from jaxcon import losses
>>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
>>> print(f"{losses.clip_loss(z1, z2, temperature=0.5):.3f}")
2.002

Families: :mod:`~jaxcon.losses.softmax`, :mod:`~jaxcon.losses.correlation`,
:mod:`~jaxcon.losses.probabilistic`. The keywords that all share: :mod:`jaxcon.typing`.
"""

from jaxcon.losses.reweighted import dcl_loss, hard_negative_loss
from jaxcon.losses.softmax import (
    clip_loss,
    info_nce_loss,
    npairs_loss,
    ntxent_loss,
    supcon_loss,
)

__all__ = [
    "clip_loss",
    "dcl_loss",
    "hard_negative_loss",
    "info_nce_loss",
    "npairs_loss",
    "ntxent_loss",
    "supcon_loss",
]
