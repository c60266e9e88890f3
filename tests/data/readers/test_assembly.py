"""Splits of a user's own pictures: what is read now and later, shares, and a second source."""

import numpy as np
import pytest
from PIL import Image

from jaxcon.data.captions import load_pairs
from jaxcon.data.image_files import read_image
from jaxcon.data.pixels import fit
from jaxcon.data.sources import load
from jaxcon.data.splits import DataError
from tests.data.readers.pictures import members, picture, write_folder, write_tar


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def lengths(dataset):
    return [len(part) for part in (dataset.train, dataset.validation, dataset.test)]


def test_photographs_are_cropped_from_their_files_and_seen_as_the_field_does(tmp_path):
    contents = {f"{i}.jpg": picture(i, size=(330, 250)) for i in range(10)}
    dataset = load(f"folder:{write_folder(tmp_path / 'photos', contents)}")
    assert dataset.train.image_shape == (224, 224, 3)
    assert dataset.test.zoom == 0.875
    assert not dataset.train.in_memory
    assert dataset.test.in_memory
    for part in (dataset.train, dataset.test):
        name = part.names[1]
        assert part.originals[1] == contents[name]
        image = Image.fromarray(read_image(tmp_path / "photos" / name, None))
        np.testing.assert_array_equal(part.images[1], np.asarray(fit(image, 224, 0.875)))
    small = load(f"folder:{tmp_path}/photos", image_size=32).test
    assert (small.image_shape, small.zoom) == ((32, 32, 3), 0.875)
    assert not load(f"folder:{tmp_path}/photos", memory_limit=0).test.in_memory


def test_small_pictures_of_one_size_stay_in_memory_and_others_are_seen_whole(tmp_path):
    squares = {f"{i}.png": picture(i, size=(20, 20), kind="PNG") for i in range(10)}
    dataset = load(f"folder:{write_folder(tmp_path / 'squares', squares)}")
    assert dataset.train.in_memory
    assert dataset.train.originals is None
    assert dataset.train.image_shape == (20, 20, 3)
    dataset = load(f"folder:{tmp_path}/squares", image_size=16)
    assert dataset.train.originals is not None
    assert dataset.train.zoom == dataset.test.zoom == 1
    banners = squares | {"5.png": picture(5, size=(40, 20), kind="PNG")}
    dataset = load(f"folder:{write_folder(tmp_path / 'banners', banners)}")
    assert dataset.train.image_shape == (20, 20, 3)
    assert dataset.train.originals is not None


def test_a_share_for_training(tmp_path):
    write_folder(tmp_path, members(number=100))
    assert lengths(load(f"folder:{tmp_path}")) == [140, 20, 40]
    assert lengths(load(f"folder:{tmp_path}", train_share=0.94)) == [188, 4, 8]
    for share in (0.0, 1.0, -1.0, 3.0, float("nan")):
        with pytest.raises(DataError, match="train_share must lie between 0 and 1, got"):
            load(f"folder:{tmp_path}", train_share=share)
    for name in ("digits", "cifar10"):
        with pytest.raises(DataError, match=r"train_share takes your own images .*, got"):
            load(name, train_share=0.9)


def test_a_share_of_what_is_divided_already_is_refused(tmp_path):
    for part in ("train", "val", "test"):
        write_folder(tmp_path / part, members(number=4))
    with pytest.raises(DataError, match=r"train_share=0.9: nothing is to be divided"):
        load(f"folder:{tmp_path}", train_share=0.9)
    with pytest.raises(DataError, match=r"are given by validation_dataset; leave it out"):
        load(
            f"folder:{tmp_path}/train",
            train_share=0.9,
            validation_dataset=f"folder:{tmp_path}/test",
        )


def test_validation_and_test_of_another_place(tmp_path):
    write_tar(tmp_path / "train.tar", members(("ape", "cat", "dog"), number=6))
    held = {f"{n}/{i}.jpg": picture(1000 + i) for n in ("cat", "dog") for i in range(8)}
    write_folder(tmp_path / "val", held)
    dataset = load(f"tar:{tmp_path}/train.tar", validation_dataset=f"folder:{tmp_path}/val")
    assert lengths(dataset) == [18, 8, 8]
    assert dataset.class_names == ("ape", "cat", "dog")
    for part in (dataset.validation, dataset.test):
        assert np.bincount(part.labels).tolist() == [0, 4, 4]
        for name, label in zip(part.names, part.labels, strict=True):
            assert dataset.class_names[label] == name[:3]
    assert f"validation and test images from {tmp_path}/val" in dataset.summary()
    assert not set(dataset.validation.names) & set(dataset.test.names)


def test_splits_of_the_other_place_are_kept(tmp_path):
    for part, number in (("train", 6), ("val", 2), ("test", 3)):
        write_folder(tmp_path / "first" / part, members(number=number))
        write_folder(tmp_path / "second" / part, members(number=number + 1))
    first, second = (f"folder:{tmp_path}/{name}" for name in ("first", "second"))
    dataset = load(first, validation_dataset=second)
    assert lengths(dataset) == [12, 6, 8]
    assert "left out: 10 images of other splits beside them" in dataset.summary()


def test_other_classes_are_refused(tmp_path):
    write_folder(tmp_path / "one", members(("cat", "dog")))
    write_folder(tmp_path / "two", members(("cat", "eel")))
    write_folder(tmp_path / "none", {f"{i}.jpg": picture(i) for i in range(10)})
    one = f"folder:{tmp_path}/one"
    with pytest.raises(DataError, match=r"two has other classes than .*one \(eel\); give both"):
        load(one, validation_dataset=f"folder:{tmp_path}/two")
    with pytest.raises(DataError, match=r"\(only one of both has classes\)"):
        load(one, validation_dataset=f"folder:{tmp_path}/none")
    with pytest.raises(DataError, match=r"validation_dataset takes your own images .*, got digits"):
        load(one, validation_dataset="digits")
    with pytest.raises(DataError, match="is a path; did you mean folder:"):
        load(one, validation_dataset=f"{tmp_path}/two")


def test_captions_of_another_place(tmp_path):
    for name, first in (("one", 0), ("two", 100)):
        contents = {f"{i}.jpg": picture(i) for i in range(first, first + 12)}
        texts = {f"{i}.txt": f"number {i}" for i in range(first, first + 12)}
        write_tar(tmp_path / f"{name}.tar", contents | texts)
    one, two = (f"tar:{tmp_path}/{name}.tar" for name in ("one", "two"))
    dataset = load_pairs(one, validation_dataset=two)
    assert lengths(dataset) == [12, 6, 6]
    for part in (dataset.train, dataset.validation, dataset.test):
        for name, texts in zip(part.images.names, part.captions, strict=True):
            assert texts == (f"number {name.removesuffix('.jpg')}",)


def test_bad_pictures_of_a_folder_are_skipped(tmp_path):
    contents = {f"{c}/{i:03}.png": picture(i, (20, 20), "PNG") for c in "ab" for i in range(100)}
    contents["a/050.png"] = b""
    write_folder(tmp_path, contents)
    with pytest.raises(DataError, match=r"cannot read the image .*050\.png \(the file is empty\)"):
        load(f"folder:{tmp_path}")
    with pytest.raises(DataError, match="bad_images must be error or skip, got ignore"):
        load(f"folder:{tmp_path}", bad_images="ignore")
    dataset = load(f"folder:{tmp_path}", bad_images="skip")
    assert dataset.train.originals is not None  # so that training can take another in its place
    assert "cannot be read: 1 image (" in dataset.summary()


def test_damage_that_only_a_decoder_sees_is_skipped_by_evaluation_too(tmp_path):
    contents = {f"{c}/{i}.jpg": picture(i + 10 * (c == "b")) for c in "ab" for i in range(10)}
    write_folder(tmp_path, contents)
    whole = load(f"folder:{tmp_path}")
    for part in (whole.train, whole.test):
        name = part.names[0]
        broken = bytearray(contents[name])
        broken[2:400] = b"\xff\xc0\0\x11\x08\0\x1e\0\x28" + bytes(389)  # a size, and no tables
        (tmp_path / name).write_bytes(broken)
    with pytest.raises(DataError, match="cannot read the image"):
        load(f"folder:{tmp_path}")
    dataset = load(f"folder:{tmp_path}", bad_images="skip")
    for before, now in ((whole.train, dataset.train), (whole.test, dataset.test)):
        other = np.flatnonzero(before.labels == before.labels[0])[1]
        np.testing.assert_array_equal(now.images[0], before.images[int(other)])
        np.testing.assert_array_equal(now.images[1], before.images[1])
