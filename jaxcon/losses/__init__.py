"""The losses: pure functions from embeddings to a scalar, the same on one device and on many.

>>> import jax
>>> from jaxcon import losses
>>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
>>> print(f"{losses.clip_loss(z1, z2, temperature=0.5):.3f}")
2.002

Families, each a file: `softmax`, `info_nce`, `supervised` and `reweighted`; `sigmoid`; `margin` and
`mining`; `correlation`; `probabilistic`; `predictive`; `regularizers`; and `queue`, negatives from
earlier batches. `jaxcon.typing` explains the keywords that all share.
"""

from jaxcon.losses import queue
from jaxcon.losses.correlation import (
    barlow_twins_loss,
    sample_correlation_loss,
    vicreg_loss,
)
from jaxcon.losses.info_nce import info_nce_loss
from jaxcon.losses.margin import circle_loss, multi_similarity_loss, spectral_contrastive_loss
from jaxcon.losses.mining import all_triplets, hardest, semi_hard, triplet_loss
from jaxcon.losses.predictive import cosine_regression_loss
from jaxcon.losses.probabilistic import csd_loss, gaussian_clip_loss
from jaxcon.losses.regularizers import (
    alignment_loss,
    koleo_loss,
    uniformity_loss,
    variance_loss,
)
from jaxcon.losses.reweighted import dcl_loss, hard_negative_loss
from jaxcon.losses.sigmoid import siglip_loss
from jaxcon.losses.softmax import (
    clip_loss,
    npairs_loss,
    ntxent_loss,
)
from jaxcon.losses.supervised import supcon_loss

__all__ = [
    "alignment_loss",
    "all_triplets",
    "barlow_twins_loss",
    "circle_loss",
    "clip_loss",
    "cosine_regression_loss",
    "csd_loss",
    "dcl_loss",
    "gaussian_clip_loss",
    "hard_negative_loss",
    "hardest",
    "info_nce_loss",
    "koleo_loss",
    "multi_similarity_loss",
    "npairs_loss",
    "ntxent_loss",
    "queue",
    "sample_correlation_loss",
    "semi_hard",
    "siglip_loss",
    "spectral_contrastive_loss",
    "supcon_loss",
    "triplet_loss",
    "uniformity_loss",
    "variance_loss",
    "vicreg_loss",
]
