import numpy as np
import pytest
from PIL import Image

from jaxcon.data.folder import read_image
from jaxcon.data.pixels import to_rgb
from jaxcon.data.sources import DataError, load


def _write(path, size=(12, 10), mode="RGB", seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8)).convert(mode).save(path)


@pytest.fixture
def pets(tmp_path):
    for i in range(20):
        _write(tmp_path / "cat" / f"{i}.png", seed=i)
        _write(tmp_path / "dog" / "old" / f"{i}.jpg", size=(40, 30), seed=i)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_folders_are_classes_and_images_become_squares(pets):
    dataset = load(f"folder:{pets}")
    assert dataset.class_names == ("cat", "dog")
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [len(split) for split in splits] == [28, 4, 8]
    assert [np.bincount(split.labels).tolist() for split in splits] == [[14, 14], [2, 2], [4, 4]]
    assert dataset.train.image_shape == (10, 10, 3)


def test_without_folders_there_are_no_labels(tmp_path):
    for i in range(10):
        _write(tmp_path / f"{i}.png", size=(100, 90), seed=i)
    dataset = load(f"folder:{tmp_path}")
    assert dataset.class_names is None
    assert dataset.train.labels is None
    assert dataset.train.image_shape == (64, 64, 3)


def test_own_splits_are_kept_and_missing_ones_made(tmp_path):
    for part, count in (("train", 10), ("test", 3)):
        for name in ("a", "b"):
            for i in range(count):
                _write(tmp_path / part / name / f"{i}.png", seed=i)
    dataset = load(f"folder:{tmp_path}")
    assert dataset.class_names == ("a", "b")
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [18, 2, 6]


def test_images_of_the_right_size_are_untouched_and_lazy_ones_the_same(tmp_path):
    for i in range(10):
        _write(tmp_path / f"{i}.png", size=(8, 8), seed=i)
    now, later = load(f"folder:{tmp_path}"), load(f"folder:{tmp_path}", memory_limit=0)
    assert now.train.in_memory
    assert not later.train.in_memory
    originals = {np.asarray(Image.open(file)).tobytes() for file in tmp_path.iterdir()}
    for i, image in enumerate(now.train.images):
        assert image.tobytes() in originals
        np.testing.assert_array_equal(image, later.train.images[i])


def test_grey_is_repeated_transparent_is_white_and_16_bits_are_scaled(tmp_path):
    Image.new("L", (2, 2), 7).save(tmp_path / "grey.png")
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.fromarray(np.full((2, 2), 0x8000, np.uint16)).save(tmp_path / "deep.png")
    for name, value in (("grey", 7), ("clear", 255), ("deep", 128)):
        np.testing.assert_array_equal(read_image(tmp_path / f"{name}.png", None), value)


def test_palette_transparency_is_white():
    image = Image.new("P", (1, 1), 0)
    image.putpalette([0, 0, 0])
    image.info["transparency"] = 0
    assert to_rgb(image).getpixel((0, 0)) == (255, 255, 255)


def test_photographs_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg", None).shape == (6, 4, 3)


@pytest.mark.parametrize("limit", [2**30, 0])
@pytest.mark.parametrize("damage", ["text", "truncated", "empty"])
def test_a_bad_image_is_named_in_one_line(pets, damage, limit):
    bad = pets / "cat" / "7.png"
    content = {"text": b"hello", "truncated": bad.read_bytes()[:200], "empty": b""}[damage]
    bad.write_bytes(content)

    def read_all():
        dataset = load(f"folder:{pets}", memory_limit=limit)
        for images in (dataset.train.images, dataset.validation.images, dataset.test.images):
            for i in range(len(images)):
                images[i]

    with pytest.raises(DataError) as error:
        read_all()
    assert str(bad) in str(error.value)
    assert "\n" not in str(error.value)


def test_errors_of_the_path(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        load(f"folder:{tmp_path}/nowhere")
    with pytest.raises(DataError, match="there are no images in"):
        load(f"folder:{tmp_path}")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="is a file"):
        load(f"folder:{tmp_path}/a.png")


def test_an_image_beside_the_classes_is_named(pets):
    _write(pets / "stray.png")
    with pytest.raises(DataError, match=r"stray\.png lies in none of them"):
        load(f"folder:{pets}")


def test_image_size_must_be_positive(pets):
    with pytest.raises(DataError, match="image_size must be at least 1, got 0"):
        load(f"folder:{pets}", image_size=0)
