"""Which file of a folder is its table of captions, and what is said where none is."""

import pytest

from jaxcon.data.captions import load_pairs
from jaxcon.data.readers.table import find_table
from jaxcon.data.splits import DataError
from tests.data.readers.tables import CSV, write


def test_what_systems_put_beside_a_table_is_none(folder):
    table = write(folder, CSV)
    write(folder, b"\0\5\x16\7", "._captions.csv")
    write(folder, b"", "~$captions.csv")
    write(folder, b"", ".captions.jsonl")
    assert find_table(folder) == table


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("results.txt", "for results.txt: save it as .csv"),
        ("captions.xlsx", "for captions.xlsx: save it as CSV UTF-8"),
        ("annotations.json", "for annotations.json: write one object a line, as .jsonl"),
        ("data/captions.csv", "or use "),
    ],
)
def test_a_table_of_another_kind_or_place_is_pointed_at(folder, name, said):
    (folder / "data").mkdir()
    write(folder, "", name)
    with pytest.raises(DataError, match=f"there are no captions in {folder}: .*{said}"):
        find_table(folder)
    if "/" not in name:
        with pytest.raises(DataError, match=r"is not a table of captions: expected \.csv"):
            find_table(folder / name)


def test_every_folder_of_a_split_may_have_its_table(folder):
    for split, numbers in (("train", range(8)), ("test", range(8, 12))):
        (folder / split).mkdir()
        for i in numbers:
            (folder / f"images/{i:02}.png").rename(folder / split / f"{i:02}.png")
        rows = "".join(f'{{"file_name": "{i:02}.png", "text": "number {i}"}}\n' for i in numbers)
        write(folder, rows, f"{split}/metadata.jsonl")
    dataset = load_pairs(f"folder:{folder}")
    assert "; tables test/metadata.jsonl, train/metadata.jsonl; " in dataset.summary()
    assert sorted(dataset.test.images.names) == [f"test/{i:02}.png" for i in range(8, 12)]
    for name, texts in zip(dataset.train.images.names, dataset.train.captions, strict=True):
        assert texts == (f"number {int(name[6:8])}",)
    write(folder, "file_name,text\n", "test/metadata.csv")
    with pytest.raises(DataError, match="there are no captions in"):
        load_pairs(f"folder:{folder}")


def test_a_table_in_this_folder_is_split_as_it_is_from_elsewhere(folder, monkeypatch):
    write(folder, CSV)
    expected = load_pairs(f"folder:{folder}")
    monkeypatch.chdir(folder)
    for name in ("folder:.", "folder:captions.csv", "folder:images/.."):
        dataset = load_pairs(name)
        assert dataset.test.captions == expected.test.captions
        assert dataset.test.images.names == expected.test.images.names


@pytest.mark.parametrize("name", ["captions.zip", "captions.tar.gz"])
def test_an_archive_is_to_be_unpacked(folder, name):
    write(folder, b"PK", name)
    with pytest.raises(DataError, match="is an archive; unpack it"):
        load_pairs(f"folder:{folder}/{name}")
