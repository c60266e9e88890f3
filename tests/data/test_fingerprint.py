"""The same data has the same fingerprint; any other has another, and what differs is said."""

import dataclasses

import numpy as np
import pytest

from jaxcon.data.captions import PairDataset, PairSplit
from jaxcon.data.fingerprint import changes, fingerprint, name_of
from jaxcon.data.photographs import Photographs
from jaxcon.data.splits import DataError, Dataset, Split
from jaxcon.data.stored import StoredFiles


def pixels(number, *, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (number, 4, 4, 3), np.uint8)


def dataset(number=6, *, named=True, seed=0, classes=("a", "b")):
    """Three splits of `number` images each."""

    def split(part):
        names = tuple(f"{part}/{i}.png" for i in range(number)) if named else None
        return Split(pixels(number, seed=seed + len(part)), np.arange(number) % 2, names)

    parts = {part: split(part) for part in ("train", "validation", "test")}
    return Dataset("x", class_names=classes, **parts)


def paired(captions, *, named=True, grades=None):
    number = len(captions)
    names = tuple(f"{i}.png" for i in range(number)) if named else None
    split = PairSplit(Split(pixels(number), names=names), captions, grades)
    return PairDataset("x", split, split, split)


def test_the_same_data_differ_in_nothing():
    for named in (True, False):
        assert fingerprint(dataset(named=named)) == fingerprint(dataset(named=named))
    captions = (("one", "two"), ("three",))
    assert fingerprint(paired(captions)) == fingerprint(paired(captions))


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_any_pixel_of_any_split_counts(part, named):
    before = dataset(named=named)
    images = getattr(before, part).images.copy()
    images[3, 2, 1, 0] ^= 1
    split = dataclasses.replace(getattr(before, part), images=images)
    now = dataclasses.replace(before, **{part: split})
    said = changes(fingerprint(before), fingerprint(now))
    if named:
        assert said == f"1 image replaced ({part}/3.png)"
    else:
        assert said == f"other images, labels or captions in {part}"


@pytest.mark.parametrize("named", [True, False])
def test_labels_count(named):
    before = dataset(named=named)
    labels = before.train.labels[::-1].copy()
    now = dataclasses.replace(
        before, train=dataclasses.replace(before.train, labels_or_reader=labels)
    )
    said = changes(fingerprint(before), fingerprint(now))
    assert "labels" in said


def test_the_label_map_counts():
    def said(*classes):
        return changes(fingerprint(dataset()), fingerprint(dataset(classes=classes or None)))

    assert said("a", "b", "c") == "1 class added (c)"
    assert said("a") == "1 class removed (b)"
    assert said("b", "a") == "the classes are in another order"
    assert said() == "2 classes (a, b) before, 0 classes now"


def test_numbers_are_told_where_images_have_no_names():
    before, now = fingerprint(dataset(named=False)), fingerprint(dataset(7, named=False))
    assert changes(before, now).startswith("train has 7 images, had 6, validation has 7 images")


def test_moved_images_are_told():
    before = dataset()
    swapped = dataclasses.replace(before, train=before.test, test=before.train)
    said = changes(fingerprint(before), fingerprint(swapped))
    assert said == "12 images moved to another split (test/0.png, test/1.png, test/2.png, ...)"


def test_captions_and_their_grades_count():
    before = fingerprint(paired((("one", "two"), ("three",))))
    for captions in (
        (("two", "one"), ("three",)),
        (("one",), ("three",)),
        (("one", "Two"), ("three",)),
    ):
        now = fingerprint(paired(captions))
        assert changes(before, now) == "captions of 1 image (0.png) edited"
        nameless = [
            fingerprint(paired(c, named=False)) for c in ((("one", "two"), ("three",)), captions)
        ]
        assert "captions in train" in changes(*nameless)
    graded = fingerprint(paired((("one", "two"), ("three",)), grades=((1, 2), (3,))))
    assert changes(before, graded) == "captions of 2 images (0.png, 1.png) edited"


def test_what_may_change_is_left_out_and_nothing_else():
    before = dataset()
    images = before.train.images.copy()
    images[[3, 4]] ^= 1
    now = dataclasses.replace(before, train=dataclasses.replace(before.train, images=images))
    both = fingerprint(before), fingerprint(now)
    assert changes(*both, ignore=["train/3.png", "train/4.png"]) is None
    assert changes(*both, ignore=["train/3.png"]) == "1 image replaced (train/4.png)"
    relabelled = dataclasses.replace(now.train, labels_or_reader=1 - before.train.labels)
    both = fingerprint(before), fingerprint(dataclasses.replace(before, train=relabelled))
    assert changes(*both, ignore=["train/3.png", "train/4.png"]) is None  # pixels of both differ


def test_long_lists_and_names_are_cut():
    before, now = dataset(), dataset(2000)
    said = changes(fingerprint(before), fingerprint(now))
    assert "5,982 images added (" in said
    assert len(said) < 300


def test_files_on_disk_are_told_by_their_bytes(tmp_path):
    """At the beginning, in the middle and at the end; neither their place nor their date."""
    size = 200_000

    def of(folder):
        folder.mkdir()
        paths = [folder / name for name in ("a.png", "b.png")]
        for path in paths:
            path.write_bytes(bytes(size))
        return paths

    def images(paths):
        split = Split(Photographs(StoredFiles(paths), (4, 4, 3)), names=("a.png", "b.png"))
        return fingerprint(Dataset("x", split, split, split))

    first, second = of(tmp_path / "one"), of(tmp_path / "two")
    before = images(first)
    assert images(second) == before
    for place in (0, size // 2, size - 1):
        changed = bytearray(size)
        changed[place] = 1
        second[1].write_bytes(changed)
        assert changes(before, images(second)) == "1 image replaced (b.png)"
    second[1].write_bytes(bytes(size + 1))
    assert changes(before, images(second)) == "1 image replaced (b.png)"


def test_the_image_that_an_error_blames_has_a_name(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.png", "b.png")]
    split = Split(Photographs(StoredFiles(paths), (4, 4, 3)), names=("a.png", "b.png"))
    other = Dataset("x", split, split, split)
    with pytest.raises(DataError) as error:
        split.images[1]
    assert name_of(other, error.value) == "b.png"
    assert name_of(other, DataError("another")) is None
    assert name_of(dataset(), error.value) is None
