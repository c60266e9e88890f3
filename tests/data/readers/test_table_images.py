"""Images that a table names: found however they are spelled, and split alike."""

import json
import os
import unicodedata

import pytest
from PIL import Image

from jaxcon.data.captions import load_pairs
from jaxcon.data.readers.table import read_table
from jaxcon.data.splits import DataError
from tests.data.readers.tables import CSV, write


def test_one_file_by_many_paths_is_one_image(folder):
    (folder / "link.png").symlink_to(folder / "images" / "00.png")
    os.link(folder / "images" / "00.png", folder / "hard.png")
    (folder / "other").symlink_to(folder / "images")
    spellings = ["images/00.png", "./images/../images/00.png", str(folder / "images" / "00.png")]
    spellings += ["link.png", "hard.png", "other/00.png", "images\\00.png"]
    rows = [f"{image},number {i}\n" for i, image in enumerate(spellings)]
    expected = [f"number {i}" for i in range(len(rows))]
    assert read_table(write(folder, "image,caption\n" + "".join(rows))) == {"hard.png": expected}
    turned = read_table(write(folder, "image,caption\n" + "".join(rows[::-1])))
    assert turned == {"hard.png": expected[::-1]}  # the same name, so the same split


def test_absolute_paths_are_split_as_relative_ones_are(folder):
    write(folder, CSV)
    relative = load_pairs(f"folder:{folder}")
    write(folder, CSV.replace("images/", f"{folder}/images/"))
    absolute = load_pairs(f"folder:{folder}")
    for part in ("train", "validation", "test"):
        assert getattr(absolute, part).captions == getattr(relative, part).captions


def test_accents_as_another_disk_spells_them(folder):
    composed, decomposed = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    os.rename(folder / "images" / "00.png", folder / "images" / decomposed)
    captions = read_table(write(folder, f"image,caption\nimages/{composed},a\n"))
    assert captions == {f"images/{decomposed}": ["a"]}


def test_names_that_are_not_utf_8_are_found(folder):
    name = os.fsdecode(b"caf\xe9.png")
    os.rename(folder / "images" / "00.png", folder / "images" / name)
    row = json.dumps({"image": f"images/{name}", "caption": "a"})
    rows = "".join(f'{{"image": "images/{i:02}.png", "caption": "b"}}\n' for i in range(1, 12))
    write(folder, row + "\n" + rows, "a.jsonl")
    dataset = load_pairs(f"folder:{folder}")
    assert sum(len(part) for part in (dataset.train, dataset.validation, dataset.test)) == 12


def test_the_side_is_taken_from_many_images(folder):
    Image.new("RGB", (1, 1)).save(folder / "images" / "00.png")
    write(folder, CSV)
    dataset = load_pairs(f"folder:{folder}")
    assert dataset.train.images.image_shape == (9, 9, 3)
    assert dataset.summary() == (
        "found 12 images with 12 captions: 9 train, 1 validation, 2 test; read at 9 x 9 pixels; "
        "table captions.csv; files from 1 x 1 to 9 x 9"
    )


def test_damaged_images_are_found_by_their_headers(folder):
    for i in (3, 4):
        (folder / "images" / f"{i:02}.png").write_bytes(b"")
    write(folder, CSV)
    with pytest.raises(DataError, match=r"cannot read 2 of 12 images: .*03\.png \(the file"):
        load_pairs(f"folder:{folder}", memory_limit=0)
