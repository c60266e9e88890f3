"""Which images a page shows: some of every class, and always the same ones."""

import jax
import numpy as np
import pytest

from experiments.running.examples import make_views, map_rows, spread
from jaxcon.augment import gaussian_noise, two_views
from jaxcon.data.splits import Split
from jaxcon.training.devices import make_mesh


@pytest.mark.parametrize("sizes", [(90, 7, 3), (1, 1, 50), (40,) * 10, (1,) * 30, (5, 0, 5)])
@pytest.mark.parametrize("count", [1, 8, 32])
def test_no_class_has_two_more_than_another_that_has_some_left(sizes, count):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    labels = labels[np.random.default_rng(0).permutation(len(labels))]
    rows = spread(len(labels), count, labels)
    assert len(set(rows.tolist())) == len(rows) == min(count, len(labels))
    taken = np.bincount(labels[rows], minlength=len(sizes))
    left = np.array(sizes) - taken
    assert taken.max() - min(taken[left > 0], default=taken.max()) <= 1
    assert labels[rows].tolist() == sorted(labels[rows])
    np.testing.assert_array_equal(rows, spread(len(labels), count, labels))


def test_without_classes_every_stretch_of_the_rows_gives_one():
    rows = spread(1000, 8)
    assert (rows * 8 // 1000).tolist() == list(range(8))
    assert len(set((rows % 125).tolist())) > 4  # not the same place of each
    assert spread(3, 8).tolist() == [0, 1, 2]
    assert spread(0, 8).tolist() == []


def test_of_many_classes_it_is_not_the_first_ones():
    labels = np.repeat(np.arange(100), 10)
    chosen = labels[spread(1000, 8, labels)]
    assert len(set(chosen.tolist())) == 8
    assert chosen.max() > 50
    rows = spread(1000, 100, labels)
    assert (rows % 10 > 0).any()  # nor the first row of each


def test_views_are_those_of_training_whatever_the_number_of_images():
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1), dtype=np.uint8)
    noise = gaussian_noise_of(0.3)
    views = make_views(noise, [noise], None, seed=7)
    expected = two_views(jax.random.key(7), images, transform=noise)
    found = views(Split(images), np.arange(5))
    for view, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(view, wanted, atol=1e-6)


@pytest.mark.parametrize("devices", [0, 1, 3, 8])
def test_rows_are_mapped_in_batches_that_devices_share(devices):
    images = np.random.default_rng(0).integers(0, 256, (20, 2, 2, 1), dtype=np.uint8)
    mesh = make_mesh(jax.devices()[:devices]) if devices else None
    shapes = set()

    def apply(rows):
        shapes.add(rows.shape)
        assert not devices or len(rows.sharding.device_set) == devices
        return rows.reshape(len(rows), -1) * 2.0

    for source in (images, list(images)):
        found = map_rows(apply, source, batch=3, mesh=mesh)
        np.testing.assert_array_equal(found, images.reshape(20, -1) * 2.0)
    assert shapes == {(3 * max(devices, 1), 2, 2, 1)}


def gaussian_noise_of(std):
    return lambda key, image: gaussian_noise(key, image, std=std)
