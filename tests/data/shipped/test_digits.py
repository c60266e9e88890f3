import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxcon.data.shipped.digits import to_uint8
from jaxcon.data.sources import load
from tests.data.processes import NO_TENSORFLOW, start


def test_sizes_types_and_names(digits):
    sizes = [len(split) for split in (digits.train, digits.validation, digits.test)]
    assert sizes == [1259, 179, 359]
    assert digits.train.images.dtype == np.uint8
    assert digits.train.labels.dtype == np.int32
    assert digits.train.image_shape == (8, 8, 1)
    assert digits.class_names == tuple("0123456789")


def test_images_and_labels_are_scikit_learns_each_once(digits):
    x, y = load_digits(return_X_y=True)
    expected = sorted(
        (tuple(np.floor(row * 255 / 16 + 0.5)), label) for row, label in zip(x, y, strict=True)
    )
    found = [
        (tuple(image.ravel().astype(float)), label)
        for split in (digits.train, digits.validation, digits.test)
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    assert sorted(found) == expected


def test_classes_are_shared_out_evenly(digits):
    counts = np.bincount(load_digits().target)
    np.testing.assert_array_equal(np.bincount(digits.test.labels), np.round(counts / 5))
    np.testing.assert_array_equal(np.bincount(digits.validation.labels), np.round(counts / 10))


def test_pixel_values_cover_the_range():
    assert to_uint8(np.arange(17)).tolist() == [round(v * 255 / 16 + 1e-9) for v in range(17)]


def test_lazy_reading_gives_the_same(digits, data_dir):
    lazy = load("digits", data_dir=data_dir, memory_limit=0).validation
    assert not lazy.in_memory
    np.testing.assert_array_equal(
        np.stack([lazy.images[i] for i in range(len(lazy))]), digits.validation.images
    )
    np.testing.assert_array_equal(lazy.labels, digits.validation.labels)


def test_image_size_enlarges(data_dir):
    assert load("digits", data_dir=data_dir, image_size=12).test.image_shape == (12, 12, 1)


@pytest.mark.slow
def test_two_processes_prepare_at_once_without_tensorflow_and_in_silence(tmp_path):
    code = f"""{NO_TENSORFLOW}
from jaxcon.data.sources import load
d = load("digits")
print(len(d.train), int(d.train.images.sum()))
"""
    processes = [start(code, cache=tmp_path) for _ in range(2)]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert results[0][0] == results[1][0]
    assert results[0][0].startswith("1259 ")
    assert results[0][1] == results[1][1] == ""
    assert [p.name for p in (tmp_path / "jaxcon" / "jaxcon_digits").iterdir()] == ["1.0.0"]
