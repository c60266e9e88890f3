import itertools

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcon.data.batching import _local_rows, batches
from jaxcon.data.order import batch_indices
from jaxcon.data.photographs import Photographs
from jaxcon.data.sources import DataError, load
from jaxcon.data.splits import Split
from jaxcon.data.stored import StoredFiles


@pytest.fixture
def numbered():
    """Ten images that show their own position."""
    return Split(np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1))


@pytest.fixture
def over_all_devices():
    return NamedSharding(Mesh(np.array(jax.devices()), ("batch",)), PartitionSpec("batch"))


def _equal(found, expected):
    for one, other in itertools.zip_longest(found, expected):
        assert one.keys() == other.keys() == {"image", "index"}
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])


def test_an_epoch_takes_every_example_once_and_drops_the_rest():
    epochs = [
        np.concatenate([batch_indices(11, seed=1, batch_size=3, step=3 * e + t) for t in range(3)])
        for e in range(4)
    ]
    assert all(len(set(epoch.tolist())) == 9 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    left_out = {tuple(set(range(11)) - set(epoch.tolist())) for epoch in epochs}
    assert len(left_out) > 1


def test_order_is_a_function_of_seed_and_step():
    words = np.random.Philox(key=np.array([5, 2], np.uint64)).random_raw(100)
    expected = sorted(range(100), key=lambda i: words[i])[25:50]
    assert batch_indices(100, seed=5, batch_size=25, step=9).tolist() == expected
    other = batch_indices(100, seed=6, batch_size=25, step=9)
    assert other.tolist() != expected


def test_images_are_those_of_the_indices(numbered):
    for step, batch in enumerate(batches(numbered, seed=0, batch_size=4, num_steps=5)):
        expected = batch_indices(10, seed=0, batch_size=4, step=step)
        np.testing.assert_array_equal(batch["image"].ravel(), expected)
        np.testing.assert_array_equal(batch["index"], np.arange(4 * step, 4 * step + 4))
        assert batch["index"].dtype == np.int32


def test_any_step_can_be_the_first(numbered):
    whole = list(batches(numbered, seed=0, batch_size=3, num_steps=9))
    _equal(batches(numbered, seed=0, batch_size=3, start_step=5, num_steps=4), whole[5:])


def test_without_end_and_past_the_range_of_int32(numbered):
    start = 2**31 // 4 - 1
    both = list(itertools.islice(batches(numbered, seed=0, batch_size=4, start_step=start), 2))
    assert both[0]["index"].tolist() == [2**31 - 4 + i for i in range(4)]
    assert both[1]["index"].tolist() == [0, 1, 2, 3]


def test_devices_do_not_change_the_batch(numbered, over_all_devices):
    alone = list(batches(numbered, seed=0, batch_size=8, num_steps=3))
    spread = list(batches(numbered, seed=0, batch_size=8, num_steps=3, sharding=over_all_devices))
    assert spread[0]["image"].sharding == over_all_devices
    assert spread[0]["index"].sharding == over_all_devices
    _equal(spread, alone)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_streaming_gives_the_same_batches(digits, data_dir, over_all_devices, num_workers):
    lazy = load("digits", data_dir=data_dir, memory_limit=0)
    settings = {"seed": 3, "batch_size": 16, "start_step": 76, "num_steps": 4}
    streamed = batches(lazy.train, **settings, sharding=over_all_devices, num_workers=num_workers)
    _equal(streamed, batches(digits.train, **settings))


def test_a_host_reads_only_its_own_rows(over_all_devices):
    class OneHost:
        """Two of the eight devices, as one of four hosts would see them."""

        def addressable_devices_indices_map(self, shape):
            whole = over_all_devices.addressable_devices_indices_map(shape)
            return {device: whole[device] for device in jax.devices()[2:4]}

    assert _local_rows(32, OneHost()) == range(8, 16)
    assert _local_rows(32, over_all_devices) == range(32)
    assert _local_rows(32, None) == range(32)


def test_a_bad_image_is_named_while_streaming(tmp_path):
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(b"no image")
    stored = StoredFiles([tmp_path / f"{i}.png" for i in range(8)])
    split = Split(Photographs(stored, (8, 8, 3)))
    with pytest.raises(DataError, match=r"cannot read the image .*\.png"):
        next(batches(split, seed=0, batch_size=4, num_steps=1))


def test_settings_are_refused_at_the_call(numbered):
    with pytest.raises(DataError, match="batch_size 11 is larger than the dataset, which has 10"):
        batches(numbered, seed=0, batch_size=11)
    with pytest.raises(DataError, match="batch_size must be at least 1, got 0"):
        batches(numbered, seed=0, batch_size=0)
    with pytest.raises(DataError, match="seed must not be negative, got -1"):
        batches(numbered, seed=-1, batch_size=2)
