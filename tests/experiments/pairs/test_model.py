"""What the image encoder sees: a shifted image, or the crop that the host made as it is."""

import jax
import numpy as np
import pytest

from experiments.pairs.model import make_cached, make_loss, view_of
from experiments.pairs.objectives import Outputs

KEY = jax.random.key(3)
CROPS = np.random.default_rng(0).integers(0, 256, (4, 1, 6, 6, 3), dtype=np.uint8)
BATCH = {"image": CROPS, "index": np.arange(4), "tokens": np.ones((4, 2), np.float32)}


class Sum:
    """An objective whose loss tells what reached it."""

    @staticmethod
    def loss(outputs):
        return (outputs.image * outputs.text.mean()).sum()


def apply(variables, images=None, tokens=None, *, mutable=None, method=None, train=True):
    """A dual encoder that multiplies the image by its only parameter."""
    del train
    if method == "learned":
        return {}
    outputs = Outputs(variables["params"] * images, tokens, {})
    return outputs if mutable is None else (outputs, {})


def dark(key, image):
    del key
    return image / 2


@pytest.mark.parametrize(("colours", "share"), [({}, 1.0), ({"colours": dark}, 0.5)])
def test_crops_reach_the_encoder_as_they_are_or_by_a_transform_of_ones_own(colours, share):
    expected = share * CROPS.sum() / 255
    loss_fn = make_loss(None, Sum, apply=apply, **colours)
    cached = make_cached(Sum, dark, apply, chunk_size=2, **colours)
    params = np.float32(1)
    assert loss_fn(params, {}, BATCH, KEY)[0] == pytest.approx(expected, rel=1e-4)
    assert jax.jit(cached)(params, {}, BATCH, KEY)[0][0] == pytest.approx(expected, rel=1e-4)


def test_two_crops_are_one_too_many():
    batch = BATCH | {"image": np.repeat(CROPS, 2, axis=1)}
    with pytest.raises(ValueError, match=r"expected \[batch, 1, .*got \(4, 2, 6"):
        view_of(KEY, batch, dark, dark)
