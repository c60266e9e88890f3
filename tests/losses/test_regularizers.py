"""The regularizers beyond the contract: where the hinge of the variance pulls, and where it rests."""

import numpy as np

from jaxcon import losses


def test_the_hinge_forbids_collapse_and_rests_when_spread():
    z = np.random.default_rng(0).normal(size=(64, 4))
    np.testing.assert_allclose(losses.variance_loss(np.ones((8, 4), np.float32)), 0.99, rtol=1e-6)
    assert losses.variance_loss(10 * z) == 0
