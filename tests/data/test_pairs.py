import itertools

import jax
import numpy as np
import pytest

from jaxcon.data.pairs import CaptionTokens, pair_batches
from jaxcon.data.splits import Split

COUNTS = [1, 3, 2, 4] * 5
TOKENS = np.array([[image, caption] for image, n in enumerate(COUNTS) for caption in range(n)])
SPLIT = Split(np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8))


def take(steps, **settings):
    settings = {"seed": 3, "batch_size": 4, **settings}
    stream = pair_batches(SPLIT, CaptionTokens(TOKENS, COUNTS), **settings)
    return [jax.device_get(batch) for batch in itertools.islice(stream, steps)]


def test_tokens_belong_to_the_image_beside_them():
    for batch in take(10):
        np.testing.assert_array_equal(batch["tokens"][:, 0], batch["image"][:, 0, 0, 0])
        assert batch["tokens"].dtype == np.int32


def test_any_step_can_be_the_first():
    whole, rest = take(10), take(4, start_step=6)
    for expected, batch in zip(whole[6:], rest, strict=True):
        for name in ("image", "index", "tokens"):
            np.testing.assert_array_equal(batch[name], expected[name])


def test_devices_hold_their_rows():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("batch",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    for expected, batch in zip(take(3), take(3, sharding=sharding), strict=True):
        np.testing.assert_array_equal(batch["tokens"], expected["tokens"])


def test_captions_change_between_steps_and_seeds():
    tokens = CaptionTokens(TOKENS, COUNTS)
    rows = np.arange(20)
    draws = [tokens.of(rows, seed=s, step=t).tolist() for s in (0, 1) for t in range(3)]
    assert len({str(draw) for draw in draws}) == 6


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 5.0]])
def test_captions_are_drawn_as_often_as_their_weights_say(weights):
    every = None if weights is None else np.tile(weights, 50)
    tokens = CaptionTokens(np.arange(150)[:, None] % 3, np.full(50, 3), every)
    drawn = [tokens.of(np.arange(50), seed=0, step=step).ravel() for step in range(200)]
    shares = np.bincount(np.concatenate(drawn), minlength=3) / 10_000
    expected = np.array(weights or [1, 1, 1]) / np.sum(weights or [1, 1, 1])
    np.testing.assert_allclose(shares, expected, atol=4 * 0.5 / np.sqrt(10_000))


def test_counts_must_share_out_the_captions():
    with pytest.raises(ValueError, match="3 captions do not match the counts, which sum to"):
        CaptionTokens(np.zeros((3, 1)), [1, 1])
    with pytest.raises(ValueError, match="at least 1 each"):
        CaptionTokens(np.zeros((3, 1)), [3, 0])
