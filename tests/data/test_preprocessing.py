"""What an encoder sees of an image, whatever the image comes as."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxcon.augment import to_float
from jaxcon.data.preprocessing import image_shape, prepare, preprocessing
from jaxcon.data.sources import load
from jaxcon.data.splits import DataError

COLOUR = preprocessing((8, 8, 3))
GREY = preprocessing((8, 8, 1))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_settings_are_json():
    assert json.loads(json.dumps(COLOUR)) == COLOUR
    assert image_shape(COLOUR) == (8, 8, 3)


def test_files_are_read_as_the_dataset_reads_them(tmp_path):
    for i in range(12):
        Image.fromarray(noise(20 + i, 30, 3, seed=i)).save(tmp_path / f"{i:02}.png")
    dataset = load(f"folder:{tmp_path}", image_size=8)
    files = [tmp_path / name for name in dataset.train.names or ()]
    np.testing.assert_array_equal(
        prepare(files, COLOUR),
        to_float(np.stack([dataset.train.images[i] for i in range(len(files))])),
    )


def test_kinds_of_one_picture_agree(tmp_path):
    pixels = noise(8, 8, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = pixels / np.float32(255)
    kinds = [pixels, expected, tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels)]
    for rows in (prepare(kinds, COLOUR), prepare(pixels[None], COLOUR)):
        assert rows.dtype == np.float32
        for row in rows:
            np.testing.assert_array_equal(row, expected)


def test_another_size_is_fitted_and_floats_are_fitted_alike():
    pixels = noise(30, 20, 3)
    resized = Image.fromarray(pixels).resize((8, 8), Image.Resampling.BICUBIC, (0, 5, 20, 25))
    expected = np.asarray(resized) / np.float32(255)
    rows = prepare([pixels, pixels / 255], COLOUR)
    np.testing.assert_allclose(rows, np.stack([expected] * 2), atol=1.01 / 255)
    np.testing.assert_array_equal(rows[0], rows[1])


def test_an_oblong_shape_is_filled():
    pixels = np.full((40, 40, 3), 51, np.uint8)
    rows = prepare([pixels], preprocessing((6, 10, 3)))
    assert rows.shape == (1, 6, 10, 3)
    assert set(rows.flat) == {np.float32(0.2)}


def test_grey_and_colour_are_turned_into_each_other():
    grey = noise(8, 8)
    for kind in (grey, grey[..., None]):
        np.testing.assert_array_equal(
            prepare([kind], COLOUR)[0], np.stack([grey / 255] * 3, -1).astype("f4")
        )
        np.testing.assert_array_equal(prepare([kind], GREY)[0, ..., 0], grey / np.float32(255))
    neutral = np.stack([grey] * 3, -1)
    np.testing.assert_allclose(prepare([neutral], GREY)[0, ..., 0], grey / 255, atol=1.01 / 255)


def test_what_is_transparent_is_white():
    pixels = np.zeros((8, 8, 4), np.uint8)
    assert set(prepare([pixels], COLOUR).flat) == {1.0}


def test_mean_and_deviation_are_applied():
    settings = {**COLOUR, "mean": [0.5, 0.0, 0.0], "std": [0.25, 1.0, 1.0]}
    row = prepare([np.full((8, 8, 3), 255, np.uint8)], settings)[0]
    assert row[0, 0].tolist() == [2.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (
            np.zeros((8, 8, 3), np.int64),
            r"images\[7\]: expected uint8 in 0..255 or floats .* got int64",
        ),
        (np.full((8, 8, 3), 255.0), r"floats must lie in \[0, 1\], got 255 to 255; divide"),
        (np.full((8, 8, 3), np.nan), r"floats must lie in \[0, 1\], got nan"),
        (np.zeros(5, np.uint8), r"got an array of shape \(5,\)"),
        (np.zeros((8, 8, 2), np.uint8), r"1, 3 or 4 channels, got an array of shape \(8, 8, 2\)"),
        (np.zeros((0, 8, 3), np.uint8), r"got an array of shape \(0, 8, 3\)"),
        ("none.png", r"cannot read the image"),
        ("a\0.png", r"cannot read the image a.x00.png \(no file has a name with a NUL in it\)"),
        (None, r"images\[7\]: expected a path, a Pillow image or an array, got NoneType"),
        (b"bytes", r"images\[7\]: expected a path, .* got bytes; .* opened by PIL.Image.open"),
        ([[0, 1], [0]], r"images\[7\]: expected an array, got rows of several lengths"),
        (np.zeros((8, 8), bool), r"got bool; \.astype\(np.float32\)"),
        (np.zeros((8, 8), np.uint16), r"got uint16; .* in 0..65535: / np.float32\(65535\)"),
    ],
)
def test_anything_else_is_named(image, said):
    with pytest.raises(DataError, match=said):
        prepare([image], COLOUR, first=7)
