"""Is the encoder learning, or has it collapsed? The loss alone does not tell.

A loss has no scale until it is compared with chance: a model that cannot tell K candidates apart scores
ln K. Nor does a loss below chance mean that all is well: embeddings may use few of their dimensions.

>>> import jax.numpy as jnp
>>> from jaxcon import diagnostics
>>> same = jnp.ones((7, 16))
>>> print(diagnostics.collapse_report(same, same, temperature=1.0).verdict)
complete collapse: all rows of z1 and of z2 point the same way; the loss is that of chance
"""

from jaxcon.diagnostics.collapse import CollapseReport, collapse_report
from jaxcon.diagnostics.measures import (
    chance_loss,
    contrastive_accuracy,
    effective_rank,
    mean_cosine,
)

__all__ = [
    "CollapseReport",
    "chance_loss",
    "collapse_report",
    "contrastive_accuracy",
    "effective_rank",
    "mean_cosine",
]
