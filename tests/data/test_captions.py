"""Images with captions: tables of a user's own, scenes; and what is wrong with a row."""

import csv
import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from jaxcon.data.captions import load_pairs
from jaxcon.data.shipped import scenes
from jaxcon.data.shipped.grammar import Thing
from jaxcon.data.shipped.scenes import make_example
from jaxcon.data.splits import DataError

ROWS = [
    {"image": f"images/{i:02}.png", "caption": f"picture {i}, told {again}"}
    for i in range(20)
    for again in ("once", "twice")
]


def write(folder, rows, kind="csv"):
    path = folder / f"captions.{kind}"
    if kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(20):
        pixels = np.full((20, 16, 3), 10 * i, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i:02}.png")
    return tmp_path


def in_folders(root, counts):
    """Images in folders, by how many of each, and rows of a table."""
    rows = []
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (9, 9), (i, 0, 0)).save(root / name / f"{i:02}.png")
            rows.append({"image": f"{name}/{i:02}.png", "caption": f"{name} {i}"})
    return rows


@pytest.mark.parametrize(
    ("names", "absolute"),
    [
        (("train", "val", "test"), False),
        (("train", "val", "test"), True),
        (("images/Train", "images/Validation", "images/Test"), False),
        (("birds_train/a", "birds_val/b", "birds_test/c"), False),
    ],
)
def test_folders_of_splits_are_kept(tmp_path, names, absolute):
    rows = in_folders(tmp_path, dict(zip(names, (12, 3, 5), strict=True)))
    if absolute:
        rows = [{**row, "image": str(tmp_path / row["image"])} for row in rows]
    write(tmp_path, rows)
    dataset = load_pairs(f"folder:{tmp_path}")
    parts = (dataset.train, dataset.validation, dataset.test)
    for split, name, count in zip(parts, names, (12, 3, 5), strict=True):
        assert sorted(split.captions) == sorted((f"{name} {i}",) for i in range(count))
    assert "; splits by the folders " in dataset.summary()


def test_a_split_that_folders_lack_is_held_out(tmp_path):
    write(tmp_path, in_folders(tmp_path, {"train": 20, "test": 5}))
    dataset = load_pairs(f"folder:{tmp_path}")
    assert [len(p) for p in (dataset.train, dataset.validation, dataset.test)] == [18, 2, 5]
    assert all(texts[0].startswith("test ") for texts in dataset.test.captions)


def test_a_split_beside_other_folders_is_refused(tmp_path):
    write(tmp_path, in_folders(tmp_path, {"train": 10, "test": 5, "extra": 5}))
    with pytest.raises(DataError, match=r"splits \(test, train\) next to something else \(extra\)"):
        load_pairs(f"folder:{tmp_path}")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_column_of_splits_is_not_left_out_in_silence(folder, kind):
    write(folder, [{**row, "Split": "train", "author": "me"} for row in ROWS], kind)
    summary = load_pairs(f"folder:{folder}").summary()
    assert f"; table captions.{kind}; its column Split is not read; files of" in summary


def test_one_caption_of_all_images_is_refused(folder):
    write(folder, [{**row, "caption": "a bird"} for row in ROWS])
    with pytest.raises(DataError, match="all 20 images have the caption a bird; expected"):
        load_pairs(f"folder:{folder}")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables_of_every_kind(folder, kind):
    table = write(folder, ROWS, kind)
    dataset = load_pairs(f"folder:{folder}")
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [14, 2, 4]
    seen = []
    for split in (dataset.train, dataset.validation, dataset.test):
        assert split.images.image_shape == (16, 16, 3)
        assert split.grades is None
        assert not split.attributes
        for image, captions in zip(split.images.images, split.captions, strict=True):
            number = int(image[0, 0, 0]) // 10
            assert captions == (f"picture {number}, told once", f"picture {number}, told twice")
            seen.append(number)
    assert sorted(seen) == list(range(20))
    assert load_pairs(f"folder:{table}").test.captions == dataset.test.captions


def test_splits_depend_on_the_paths_alone(folder):
    write(folder, ROWS)
    expected = load_pairs(f"folder:{folder}").test.captions
    write(folder, ROWS[::-1])
    turned = tuple(captions[::-1] for captions in expected)
    assert load_pairs(f"folder:{folder}").test.captions == turned


def test_an_image_has_one_name_however_it_is_spelled(folder):
    write(folder, ROWS)
    expected = load_pairs(f"folder:{folder}")
    again = [row | {"image": f"./images/../{row['image']}"} for row in ROWS[1::2]]
    write(folder, ROWS[::2] + again)
    dataset = load_pairs(f"folder:{folder}")
    assert dataset.train.captions == expected.train.captions
    assert dataset.test.captions == expected.test.captions


def test_large_tables_are_read_image_by_image(folder):
    write(folder, ROWS)
    lazy = load_pairs(f"folder:{folder}", memory_limit=0, image_size=8).test
    assert not lazy.images.in_memory
    expected = load_pairs(f"folder:{folder}", image_size=8).test.images.images
    np.testing.assert_array_equal(lazy.images.images[3], expected[3])


def changed(position, **values):
    rows = [dict(row) for row in ROWS]
    rows[position].update(values)
    return rows


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image": "images/99.png"}, r"there is no image .*images/99.png"),
        ({"caption": "  "}, "the caption is empty"),
        ({"image": ""}, "the image is empty"),
    ],
)
def test_the_row_is_named(folder, kind, values, message):
    table = write(folder, changed(6, **values), kind)
    number = 8 if kind == "csv" else 7  # the heading is row 1 of a CSV file
    with pytest.raises(DataError, match=rf"{table} row {number}: {message}") as caught:
        load_pairs(f"folder:{folder}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_wrong_column_is_named_with_the_right_one(folder, kind):
    write(folder, [{"image": row["image"], "Captions": row["caption"]} for row in ROWS], kind)
    with pytest.raises(
        DataError, match="no column 'caption' among image, Captions; rename 'Captions'"
    ):
        load_pairs(f"folder:{folder}")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "row 1: no column 'image' among nothing"),
        ("a.csv", "image,caption\n", "has no rows"),
        ("a.csv", "image,caption\nimages/00.png,a cat, a dog\n", "row 2: more cells than columns"),
        ("a.csv", b"image,caption\nimages/00.png,\xff\n", "save it as UTF-8"),
        ("a.jsonl", '{"image": "images/00.png"}\n', "row 1: no column 'caption' among image"),
        ("a.jsonl", '{"image": "x", "caption": 3}\n', "row 1: there is no image|must be a text"),
        ("a.jsonl", '{"image": 3, "caption": "x"}\n', "row 1: the image must be a text, got 3"),
        ("a.jsonl", "\n{oops\n", "row 2: not JSON"),
        ("a.jsonl", "[1]\n", "row 1: expected an object with image and caption"),
        ("a.parquet", "not parquet", "cannot read the table"),
    ],
)
def test_damaged_tables_are_refused_in_one_line(folder, name, text, message):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message) as caught:
        load_pairs(f"folder:{folder}")
    assert "\n" not in str(caught.value)
    assert str(folder / name) in str(caught.value)


def test_folders_without_a_table_or_with_two(folder):
    with pytest.raises(DataError, match="there are no captions in"):
        load_pairs(f"folder:{folder}")
    with pytest.raises(DataError, match="there is no folder"):
        load_pairs(f"folder:{folder}/nowhere")
    with pytest.raises(DataError, match="is not a table of captions"):
        load_pairs(f"folder:{folder}/images/00.png")
    write(folder, ROWS)
    write(folder, ROWS, "jsonl")
    with pytest.raises(DataError, match=r"2 tables \(captions.csv, captions.jsonl\); name one"):
        load_pairs(f"folder:{folder}")


def test_too_few_images_are_refused(folder):
    write(folder, ROWS[:8])
    with pytest.raises(DataError, match="names 4 images; expected at least 10"):
        load_pairs(f"folder:{folder}")


def test_a_damaged_image_is_named(folder):
    write(folder, ROWS)
    (folder / "images" / "07.png").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"cannot read the image .*07.png"):
        load_pairs(f"folder:{folder}")


def test_scenes_come_with_grades_attributes_and_counts(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "SPLITS", {"train": 30, "validation": 4, "test": 4})
        dataset = load_pairs("scenes", data_dir=tmp_path)
    wanted = {
        example.image.tobytes(): example
        for example in (make_example(number, test=False) for number in range(30))
    }
    train = dataset.train
    assert train.grades == ((1, 2, 3, 4),) * 30
    assert set(train.attributes) == set(Thing._fields) == set(dataset.classes)
    for row, image in enumerate(train.images.images):
        example = wanted.pop(image.tobytes())
        assert train.captions[row] == example.captions
        things = example.scene.things
        assert train.counts[row] == len(things)
        for name, labels in train.attributes.items():
            value = dataset.classes[name][labels[row]] if labels[row] >= 0 else None
            assert value == (getattr(things[0], name) if len(things) == 1 else None)


def test_sizes_are_checked():
    with pytest.raises(DataError, match="image_size must be at least 1, got 0"):
        load_pairs("scenes", image_size=0)
