"""A key, and small images of both kinds, that the tests of views share."""

import jax
import numpy as np

KEY = jax.random.key(7)
DIGITS = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), dtype=np.uint8)
PHOTOS = np.random.default_rng(1).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
