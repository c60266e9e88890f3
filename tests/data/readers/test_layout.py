"""What folders mean: splits in any usual spelling, classes, a folder around; or a refusal."""

import unicodedata

import pytest

from jaxcon.data.readers.layout import read_layout, split_of
from jaxcon.data.splits import DataError


def images(*folders, count=2):
    return sorted(f"{folder}/{i}.png" for folder in folders for i in range(count))


@pytest.mark.parametrize(
    ("names", "split"),
    [
        ("train Train TRAIN training Training trn train_set trainset TrainingSet", "train"),
        ("train2017 seg_train train-images train_data", "train"),
        ("val Val valid validation Validation dev valset val2017 validation_set", "validation"),
        ("test Test testing Testing test_set TestSet seg_test tst tests eval", "test"),
        ("cat trains training-shoes test_strips validator dataset images 1 pets", None),
        ("тест contest attest testtrain train_test", None),
    ],
)
def test_names_of_splits(names, split):
    for name in names.split():
        assert split_of(name) == split, name


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        ("train", {"valid": "validation", "test": "test"}),
        ("Train", {"Test": "test"}),
        ("Training", {"Testing": "test"}),
        ("seg_train", {"seg_test": "test"}),
        ("train", {"dev": "validation"}),
        ("TRAIN", {"val": "validation", "Testing": "test"}),
        ("train_small", {"val_small": "validation", "test_small": "test"}),
        ("DIV2K_train_HR", {"DIV2K_valid_HR": "validation"}),
        ("train.zip", {"test.zip": "test"}),
        ("pets-Training", {"pets-Testing": "test"}),
    ],
)
def test_splits_and_the_classes_below_them(train, held_out):
    files = images(*(f"{s}/{c}" for s in (train, *held_out) for c in ("cat", "dog")))
    layout = read_layout("pets", files)
    splits = {train: "train", **held_out}
    assert layout.splits == [splits[file.split("/")[0]] for file in files]
    assert layout.classes == [file.split("/")[1] for file in files]
    assert layout.keys == files
    assert layout.notes == [f"splits by the folders {', '.join(sorted(splits))}"]


@pytest.mark.parametrize("outer", ["dataset", "Train", "a/b/c", "train/2024"])
def test_a_folder_around_the_classes_says_nothing(outer):
    inner = images("cat", "dog")
    layout = read_layout("pets", [f"{outer}/{file}" for file in inner])
    assert layout.splits is None
    assert layout.classes == ["cat", "cat", "dog", "dog"]
    assert layout.keys == inner  # the same test images as without the outer folder
    assert layout.notes == [f"classes by the folders in {outer}"]


def test_a_folder_around_the_splits_says_nothing():
    files = images("data/train/a", "data/train/b", "data/test/a", "data/test/b")
    layout = read_layout("pets", files)
    assert layout.splits == ["test"] * 4 + ["train"] * 4
    assert layout.classes == ["a", "a", "b", "b"] * 2


@pytest.mark.parametrize("doubled", [("train", "test"), ("images", "images"), ("Train", "data")])
def test_splits_unpacked_into_folders_of_their_own_name(doubled):
    first, second = doubled
    below = [f"train/{first}/cat", f"train/{first}/dog", f"test/{second}/cat", f"test/{second}/dog"]
    layout = read_layout("pets", images(*below))
    assert layout.classes == ["cat", "cat", "dog", "dog"] * 2


@pytest.mark.parametrize(
    ("folders", "note"),
    [
        (["cat"], "one folder of images (cat), so no classes"),
        (["pets/cat"], "one folder of images (cat), so no classes"),
        (["train/cat", "test/cat"], "one folder of images (cat), so no classes"),
        (["train", "test"], "no classes"),
    ],
)
def test_one_class_is_none_and_told(folders, note):
    layout = read_layout("pets", images(*folders))
    assert layout.classes is None
    assert layout.notes[-1] == note


def test_without_folders():
    layout = read_layout("pets", ["1.png", "2.png"])
    assert layout.splits is layout.classes is None
    assert layout.notes == ["no classes"]


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (
            ["train/a", "test/a", "extra/a"],
            r"has splits \(test, train\) next to something else \(extra\)",
        ),
        (
            ["train", "val", "test", "Unlabeled"],
            r"next to something else \(Unlabeled\); move that away",
        ),
        (["test", "cat", "dog"], r"splits \(test\) next to something else \(cat, dog\)"),
        (["train/cat", "extra/cat"], r"splits \(train\) next to something else \(extra\)"),
        (["train", "test_small"], r"splits \(train\) next to something else \(test_small\)"),
        (
            ["trainA", "testA", "trainB"],
            r"splits \(testA, trainA\) next to something else \(trainB\)",
        ),
        (
            ["a_train", "a_test", "b_train", "b_test"],
            "a_test and b_test are both names of the test",
        ),
        (["a_val/cat", "a_test/cat"], "it has a_test, a_val and no folder train"),
        (["val/cat", "test/cat"], "it has test, val and no folder train"),
        (["train/a", "Train/a", "test/a"], "Train and train are both names of the train split"),
        (["train/a", "valid/a", "val/a"], "val and valid are both names of the validation split"),
        (["cat/train", "cat/test", "dog/train", "dog/test"], "cat has folders for train and other"),
        (["train/Cat", "train/dog", "test/cat", "test/dog"], "Cat and cat differ only in case"),
        (["train/cat", "test/cat", "test/dog"], "training images are all of one class .cat."),
        (
            ["train/cat", "train/dog", "test"],
            r"test images are in no class \(test/0.png\), others",
        ),
        (["train/cat", "train/dog", "test/cat", "test"], "test/0.png lies in none of them"),
        (["train/a", "train/b", "test/unknown"], r"no class of train \(unknown; train has a, b\)"),
    ],
)
def test_what_may_be_meant_in_two_ways_is_refused(folders, said):
    with pytest.raises(DataError, match=said) as caught:
        read_layout("/data/pets", images(*folders))
    assert "/data/pets" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_beside_splits_is_named():
    with pytest.raises(DataError, match=r"next to something else \(logo\.png\); move that away"):
        read_layout("pets", ["logo.png", *images("train/a", "test/a")])


def test_a_train_among_vehicles_is_a_class_and_told():
    layout = read_layout("vehicles", images("bus", "car", "train"))
    assert layout.classes == ["bus", "bus", "car", "car", "train", "train"]
    assert layout.splits is None
    assert layout.notes == ["the folder train is treated as a class"]


def test_classes_with_the_word_of_a_split_in_them_are_classes():
    names = ["bus_station", "test_tube", "train_station", "training_shoes"]
    layout = read_layout("things", images(*names))
    assert layout.splits is None
    assert sorted(set(layout.classes)) == names


def test_classes_that_a_split_lacks_are_named():
    layout = read_layout("pets", images("train/a", "train/b", "test/a", "test/c"))
    assert layout.notes[-2:] == ["test lacks b", "train lacks c"]


def test_letters_may_differ_in_case_where_both_are_there():
    layout = read_layout("letters", images("train/a", "train/A", "test/a"))
    assert sorted(set(layout.classes)) == ["A", "a"]
    assert "the classes A and a differ only in case" in layout.notes


def test_one_accent_spelled_in_two_ways_is_one_class():
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    files = images(f"train/{decomposed}", "train/tea", f"test/{composed}", "test/tea")
    assert set(read_layout("drinks", files).classes) == {composed, "tea"}
    keys = [read_layout("drinks", images(name, "tea")).keys for name in (composed, decomposed)]
    assert sorted(keys[0]) == sorted(keys[1])
