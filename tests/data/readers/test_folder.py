import os
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxcon.data.captions import load_pairs
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
    assert dataset.train.image_shape == (90, 90, 3)


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


@pytest.mark.parametrize("limit", [2**30, 0])
def test_all_bad_images_are_counted_before_any_is_decoded(pets, limit):
    for i in range(7):
        (pets / "cat" / f"{i}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot read 7 of 40 images: .* and 4 more; repair"):
        load(f"folder:{pets}", memory_limit=limit)


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


def test_one_line_says_what_was_found_and_what_was_left_out(pets):
    (pets / "bird").mkdir()
    (pets / "fish").mkdir()
    (pets / "fish" / "1.heic").write_bytes(b"")
    _write(pets / ".Trash-1000" / "0.png")
    summary = load(f"folder:{pets}").summary()
    assert summary == (
        "found 40 images of 2 classes (cat, dog): 28 train, 4 validation, 8 test; read at 10 x 10 "
        "pixels; files from 12 x 10 to 40 x 30; no image in bird, fish; left out: 1 .heic (pip "
        "install pillow-heif, which reads it), 1 hidden or system folder (.Trash-1000), 1 .txt"
    )


@pytest.mark.parametrize("names", [["a\nb", "c"], ["x" * 200, "y" * 200]])
def test_the_line_is_one_whatever_the_names(names, tmp_path):
    for name in names:
        for i in range(10):
            _write(tmp_path / name / f"{i}.png", seed=i)
    summary = load(f"folder:{tmp_path}").summary()
    assert summary.isprintable()
    assert len(summary) < 500


@pytest.mark.parametrize("sizes", [(1, 1), (2000, 3)])
def test_one_odd_image_does_not_decide_the_size(sizes, tmp_path):
    _write(tmp_path / "0.png", size=sizes)
    for i in range(1, 10):
        _write(tmp_path / f"{i}.png", size=(30, 20), seed=i)
    assert load(f"folder:{tmp_path}").train.image_shape == (20, 20, 3)


@pytest.mark.parametrize("counts", [(1, 1), (2, 2), (3,), (5, 5), (1,), (7,), (7, 1)])
def test_too_few_images_are_refused_with_how_many_do(counts, tmp_path):
    for name, count in zip("abc", counts, strict=False):
        for i in range(count):
            _write(tmp_path / name / f"{i}.png", seed=i)
    with pytest.raises(DataError, match=f"{sum(counts)} images are too few .*at least 8") as caught:
        load(f"folder:{tmp_path}")
    assert str(tmp_path) in str(caught.value)
    for i in range(8):
        _write(tmp_path / "a" / f"{i}.png", seed=i)
    dataset = load(f"folder:{tmp_path}")
    assert len(dataset.validation)
    assert len(dataset.test)


def test_names_that_are_not_utf_8_are_read_and_split(tmp_path):
    for i in range(10):
        _write(tmp_path / os.fsdecode(b"caf\xe9%d.png" % i), seed=i)
    dataset = load(f"folder:{tmp_path}")
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [7, 1, 2]


def test_a_copy_within_another_folder_has_the_same_test_images(pets, tmp_path_factory):
    outer = tmp_path_factory.mktemp("outer")
    shutil.copytree(pets, outer / "unpacked" / "pets")
    expected, copy = load(f"folder:{pets}"), load(f"folder:{outer}")
    assert copy.class_names == ("cat", "dog")
    np.testing.assert_array_equal(copy.test.images, expected.test.images)
    assert "classes by the folders in unpacked/pets" in copy.summary()


@pytest.mark.parametrize("text", ["folder:", "folder: "])
def test_an_empty_variable_of_the_shell_is_not_this_folder(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "1.png")
    for loader in (load, load_pairs):
        with pytest.raises(DataError, match=r"names no folder .*is empty.*; expected"):
            loader(text)


def test_this_folder_without_the_runs_in_it(pets, monkeypatch):
    monkeypatch.chdir(pets)
    before = load("folder:.")
    _write(pets / "runs" / "simclr-folder-." / "figures" / "a.png")
    (pets / "runs" / "simclr-folder-." / "config.json").write_text("{}")
    (pets / "runs" / "simclr-folder-." / "checkpoints").mkdir()
    again = load("folder:.")
    assert again.class_names == before.class_names == ("cat", "dog")
    np.testing.assert_array_equal(again.train.images, before.train.images)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pets.zip", "is an archive; unpack it"),
        ("pets.tar.gz", "is an archive; unpack it"),
        ("pets.csv", "is a file, a table of captions, which experiments.clip reads"),
        ("pets.jpg", "is a file; folder: takes the path of a folder"),
    ],
)
def test_a_file_instead_of_a_folder(name, said, tmp_path):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=said):
        load(f"folder:{tmp_path}/{name}")


def test_a_folder_that_is_not_there_and_the_one_that_was_meant(tmp_path):
    (tmp_path / "Pets").mkdir()
    for wrong in ("pets", "Pest", "pets/cat"):
        with pytest.raises(DataError, match=f"there is no folder .*; did you mean {tmp_path}/Pets"):
            load(f"folder:{tmp_path}/{wrong}")
    for wrong in (f"{tmp_path}/{'x' * 300}", "~nobody-of-this-name/pets"):
        with pytest.raises(DataError) as caught:
            load(f"folder:{wrong}")
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("typed", [" {}", "{} ", "'{}'", '"{}"', "file://{}", "$PARENT/Pets"])
def test_a_path_with_more_around_it_than_the_shell_takes_away(typed, tmp_path, monkeypatch):
    (tmp_path / "Pets").mkdir()
    monkeypatch.setenv("PARENT", str(tmp_path))
    with pytest.raises(DataError, match=f"there is no folder .*; did you mean {tmp_path}/Pets?"):
        load(f"folder:{typed.format(tmp_path / 'Pets')}")


def test_a_folder_without_images_says_what_it_has(tmp_path):
    for name in ("a.heic", "b.txt", "pets.zip"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        DataError, match=r"no images in .*1 \.heic .pip install.*1 \.zip .unpack it"
    ):
        load(f"folder:{tmp_path}")
