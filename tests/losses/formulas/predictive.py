"""The formulas of jaxcon/losses/predictive.py."""

import numpy as np

from tests.losses.formulas.anchors import all_valid, unit


def cosine_regression(predictions, targets, *, held=None):
    """Grill et al. 2020, eq. 2: the target network receives no gradient."""
    p, t = unit(predictions), unit(held[1] if held else targets)
    return all_valid([np.sum((a - b) ** 2) for a, b in zip(p, t, strict=True)])
