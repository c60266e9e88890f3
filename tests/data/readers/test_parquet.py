"""Parquet files of pictures: as bytes, as Hugging Face writes them, or as paths."""

import json
import pickle

import numpy as np
import pyarrow
import pytest

from jaxcon.data.captions import load_pairs
from jaxcon.data.fingerprint import changes, fingerprint
from jaxcon.data.sources import load
from jaxcon.data.splits import DataError
from jaxcon.data.stored import all_rows
from tests.data.readers.pictures import (
    assert_same,
    members,
    picture,
    write_folder,
    write_parquet,
    write_tar,
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def shuffled(contents):
    names = list(contents)
    return [names[i] for i in np.random.default_rng(0).permutation(len(names))]


def test_a_folder_a_tar_and_parquet_give_the_same_run(tmp_path):
    contents = members()
    folder = load(f"folder:{write_folder(tmp_path / 'pets', contents)}")
    names = shuffled(contents)
    cells = [{"bytes": contents[name], "path": name} for name in names]
    write_parquet(tmp_path / "pets.parquet", {"image": cells})
    write_parquet(tmp_path / "pets" / "paths.parquet", {"file_name": names})
    for i in range(3):
        write_parquet(tmp_path / "many" / f"{i}.parquet", {"img": cells[i::3]}, rows_a_group=2)
    write_tar(tmp_path / "pets.tar", contents)
    others = [
        load(f"parquet:{tmp_path}/{p}") for p in ("pets.parquet", "many", "many/{0..2}.parquet")
    ]
    for other in [*others, load(f"parquet:{tmp_path}/pets/paths.parquet")]:
        assert_same(folder, other)
    assert_same(load(f"tar:{tmp_path}/pets.tar"), others[0])


def test_classes_of_a_column_are_those_of_folders(tmp_path):
    contents = members()
    folder = load(f"folder:{write_folder(tmp_path / 'pets', contents)}")
    names = shuffled(contents)
    cells = [{"bytes": contents[name], "path": name} for name in names]
    words = [name.split("/")[0] for name in names]
    write_parquet(tmp_path / "words.parquet", {"image": cells, "label": words})
    category = pyarrow.array(words).dictionary_encode()
    write_parquet(tmp_path / "categories.parquet", {"image": cells, "fine_label": category})
    written = {"info": {"features": {"label": {"names": ["dog", "cat"], "_type": "ClassLabel"}}}}
    write_parquet(
        tmp_path / "numbers.parquet",
        {"image": cells, "label": [int(word == "cat") for word in words]},
        metadata={"huggingface": json.dumps(written)},
    )
    for file in ("words", "categories", "numbers"):
        assert_same(folder, load(f"parquet:{tmp_path}/{file}.parquet"))


def test_bytes_without_names_keep_the_order_of_the_file(tmp_path):
    contents = [picture(i) for i in range(30)]
    numbers = [9 + i % 2 for i in range(30)]
    file = write_parquet(tmp_path / "a.parquet", {"jpg": contents, "cls": numbers})
    dataset = load(f"parquet:{file}")
    assert dataset.class_names == ("9", "10")
    for part in (dataset.train, dataset.validation, dataset.test):
        rows = [int(name.removeprefix("a:")) for name in part.names]
        assert rows == sorted(rows)
        for i, row in enumerate(rows):
            assert part.originals[i] == contents[row]
            assert dataset.class_names[part.labels[i]] == str(numbers[row])
    assert dataset.train.originals.place(0) == f"{file} row {int(dataset.train.names[0][2:]) + 1}"
    again = pickle.loads(pickle.dumps(dataset.train.originals))
    assert again[5] == dataset.train.originals[5]


def test_captions_are_a_text_or_a_list_and_rows_of_a_picture_are_one(tmp_path):
    contents = {f"{i:02}.jpg": picture(i) for i in range(12)}
    cells = [{"bytes": content, "path": name} for name, content in contents.items()]
    told = [[f"number {i}", f"again {i}"] for i in range(12)]
    write_parquet(tmp_path / "list.parquet", {"image": cells, "sentences": told})
    rows = [(cell, text) for cell, texts in zip(cells, told, strict=True) for text in texts]
    flat = {"image": [cell for cell, _ in rows], "text": [text for _, text in rows]}
    write_parquet(tmp_path / "flat.parquet", flat)
    one, other = (load_pairs(f"parquet:{tmp_path}/{n}.parquet") for n in ("list", "flat"))
    assert sum(map(len, (one.train, one.validation, one.test))) == 12
    for part in ("train", "validation", "test"):
        assert getattr(one, part).captions == getattr(other, part).captions
    assert one.train.captions[0] == tuple(told[int(one.train.images.names[0][:2])])


def test_one_path_of_all_pictures_is_no_name(tmp_path):
    cells = [{"bytes": picture(i), "path": "image.jpg"} for i in range(10)]
    dataset = load(f"parquet:{write_parquet(tmp_path / 'a.parquet', {'image': cells})}")
    parts = (dataset.train, dataset.validation, dataset.test)
    assert len({part.originals[i] for part in parts for i in range(len(part))}) == 10


def test_splits_by_the_names_of_files_and_a_test_split_without_classes(tmp_path):
    for split, number in (("train", 20), ("validation", 6), ("test", 4)):
        for i in range(2):
            cells = [picture(j, size=(32, 30)) for j in range(number)]
            label = [-1 if split == "test" else j % 2 for j in range(number)]
            file = tmp_path / f"{split}-{i:05}-of-00002.parquet"
            write_parquet(file, {"image": cells, "label": label})
    dataset = load(f"parquet:{tmp_path}")
    assert [len(p) for p in (dataset.train, dataset.validation, dataset.test)] == [36, 4, 12]
    assert (
        "test has no classes (8 images left out), so validation is tested on" in dataset.summary()
    )
    assert "splits by the files test, train, validation" in dataset.summary()


def test_another_file_of_the_same_name_is_told(tmp_path):
    cells = [picture(i) for i in range(10)]
    file = write_parquet(tmp_path / "a.parquet", {"image": cells})
    before = fingerprint(load(f"parquet:{file}"))
    write_parquet(file, {"image": [*cells, picture(11)]})
    assert changes(before, fingerprint(load(f"parquet:{file}"))) == "1 file replaced (a.parquet)"


def test_pictures_in_files_of_their_own_are_looked_at_again(tmp_path):
    contents = members()
    write_folder(tmp_path, contents)
    file = write_parquet(tmp_path / "a.parquet", {"file_name": [*contents]})
    before = fingerprint(load(f"parquet:{file}"))
    first = tmp_path / next(iter(contents))
    whole = first.read_bytes()
    first.write_bytes(whole[:100])
    with pytest.raises(DataError, match="cannot read the image"):
        load(f"parquet:{file}")
    first.write_bytes(whole)  # repaired
    assert changes(before, fingerprint(load(f"parquet:{file}"))) is None
    first.write_bytes(picture(12345))
    assert changes(before, fingerprint(load(f"parquet:{file}"))) is not None


def test_few_files_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxcon.data.readers.parquet._FILES", 2)
    cells = [picture(i) for i in range(10)]
    for i, cell in enumerate(cells):
        write_parquet(tmp_path / f"{i}.parquet", {"image": [cell], "name": [f"{i}.jpg"]})
    stored = all_rows(load(f"parquet:{tmp_path}").train.originals)[0]
    for _ in range(2):
        assert {stored[i] for i in range(10)} == set(cells)
        assert len(stored._open) == 2


def test_large_row_groups_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxcon.data.readers.parquet._LARGE", 1000)
    file = write_parquet(tmp_path / "a.parquet", {"image": [picture(i) for i in range(10)]})
    assert (
        "; row groups of 0 MiB, which are read for each picture"
        in load(f"parquet:{file}").summary()
    )


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"pixels": [[1, 2]], "n": [1.0]},
            r"no column of pictures among pixels \(list<.*, n \(double\); expected one named image",
        ),
        ({"image": [b"x"] * 10}, r"cannot read 10 of 10 images: .*a\.parquet row 1 \(not an image"),
        ({"image": ["no.jpg"] * 2 + ["b.jpg"]}, r"cannot read 2 of 2 images: .*no\.jpg \(No such"),
        ({"image": [{"bytes": None, "path": None}]}, r"a\.parquet row 1 \(the cell is empty\)"),
        ({"image": pyarrow.array([], pyarrow.binary())}, "there are no images in parquet:"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, columns, said):
    file = write_parquet(tmp_path / "a.parquet", columns)
    with pytest.raises(DataError, match=said) as caught:
        load(f"parquet:{file}")
    assert str(caught.value).isprintable()


def test_a_file_that_is_none_or_has_no_captions_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"cannot read the parquet file .*a\.parquet: "):
        load(f"parquet:{tmp_path}/a.parquet")
    write_parquet(tmp_path / "b.parquet", {"image": [picture(i) for i in range(10)]})
    with pytest.raises(DataError, match=r"has no captions; expected .* or a column caption"):
        load_pairs(f"parquet:{tmp_path}/b.parquet")
