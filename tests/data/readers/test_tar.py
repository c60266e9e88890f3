"""Tar shards: what belongs together, the same run as from a folder, and shards that change."""

import json
import os
import pickle

import numpy as np
import pytest

from jaxcon.data.captions import load_pairs
from jaxcon.data.fingerprint import changes, fingerprint, name_of
from jaxcon.data.sources import load
from jaxcon.data.splits import DataError
from tests.data.readers.pictures import assert_same, members, picture, write_folder, write_tar

TEN = {f"{i}.jpg": picture(i) for i in range(10)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def labelled(contents, **beside):
    """Each member, and beside it what functions of its name say, by their endings."""
    found = {}
    for name, content in contents.items():
        found[name] = content
        for ending, value in beside.items():
            found[f"{name.partition('.')[0]}.{ending}"] = value(name)
    return found


def test_a_folder_and_its_tar_give_the_same_run(tmp_path):
    contents = members()
    write_folder(tmp_path / "pets", contents)
    write_tar(
        tmp_path / "pets.tar", {f"./{n}": c for n, c in sorted(contents.items(), reverse=True)}
    )
    items = list(contents.items())
    for i in range(3):
        write_tar(tmp_path / "shards" / f"pets-{i:03}.tar", dict(items[i::3]))
    folder = load(f"folder:{tmp_path}/pets")
    for path in ("pets.tar", "shards", "shards/pets-{000..002}.tar", "shards/*.tar"):
        assert_same(folder, load(f"tar:{tmp_path}/{path}"))


def test_classes_beside_the_pictures_are_those_of_folders(tmp_path):
    contents = members()
    write_folder(tmp_path / "pets", contents)
    names = labelled(contents, cls=lambda name: f"{name.split('/')[0]}\n")
    write_tar(tmp_path / "names.tar", names)
    jsons = labelled(contents, json=lambda name: json.dumps({"label": name.split("/")[0], "x": 1}))
    write_tar(tmp_path / "jsons.tar", jsons)
    for file in ("names.tar", "jsons.tar"):
        assert_same(load(f"folder:{tmp_path}/pets"), load(f"tar:{tmp_path}/{file}"))


def test_classes_that_are_numbers_keep_their_order(tmp_path):
    contents = {f"{i:02}.jpg": picture(i) for i in range(30)}
    numbers = {"0": "10", "1": "9", "2": "101"}
    write_tar(
        tmp_path / "a.tar", labelled(contents, cls=lambda name: numbers[str(int(name[:2]) % 3)])
    )
    dataset = load(f"tar:{tmp_path}/a.tar")
    assert dataset.class_names == ("9", "10", "101")
    for name, label in zip(dataset.train.names, dataset.train.labels, strict=True):
        assert dataset.class_names[label] == numbers[str(int(name[:2]) % 3)]


@pytest.mark.parametrize("ending", ["txt", "json", "json list"])
def test_captions_are_those_of_a_table(tmp_path, ending):
    contents = {f"images/{i}.jpg": picture(i) for i in range(12)}
    write_folder(tmp_path / "birds", contents)
    rows = [{"image": name, "caption": f"bird {name}"} for name in contents]
    (tmp_path / "birds" / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    said = {
        "txt": lambda name: f"bird {name}\n",
        "json": lambda name: json.dumps({"caption": f"bird {name}"}),
        "json list": lambda name: json.dumps({"text": [f"bird {name}", " "]}),
    }[ending]
    write_tar(tmp_path / "a.tar", labelled(contents, **{ending.split()[0]: said}))
    table, tar = load_pairs(f"folder:{tmp_path}/birds"), load_pairs(f"tar:{tmp_path}/a.tar")
    for part in ("train", "validation", "test"):
        one, other = getattr(table, part), getattr(tar, part)
        assert one.captions == other.captions
        assert tuple(one.images.names) == tuple(other.images.names)
        assert one.images.originals[0] == other.images.originals[0]


def test_pictures_without_captions_are_left_out_and_counted(tmp_path):
    contents = labelled(TEN, txt=lambda name: f"number {name}")
    write_tar(tmp_path / "a.tar", contents | {"x.jpg": picture(99)})
    dataset = load_pairs(f"tar:{tmp_path}/a.tar")
    assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 10
    assert "; left out: 1 image without a caption" in dataset.summary()
    with pytest.raises(DataError, match=r"has no captions; expected a \.txt, or a \.json"):
        load_pairs(f"tar:{write_tar(tmp_path / 'b.tar', TEN)}")
    same = labelled(TEN, txt=lambda _: "a bird")
    with pytest.raises(DataError, match="all 10 images have the caption a bird"):
        load_pairs(f"tar:{write_tar(tmp_path / 'c.tar', same)}")


@pytest.mark.parametrize("word", ["-train-000", "train/000", "_Train.2017"])
def test_splits_by_the_names_of_shards(tmp_path, word):
    contents = members(number=12)
    for split, start, stop in (("train", 0, 8), ("val", 8, 10), ("test", 10, 12)):
        chosen = {n: c for n, c in contents.items() if start <= int(n[4:-4]) < stop}
        write_folder(tmp_path / "pets" / split, chosen)
        shard = word.lower().replace("train", split)
        write_tar(tmp_path / "shards" / f"pets{'/' if '/' in word else ''}{shard}.tar", chosen)
    dataset = load(f"tar:{tmp_path}/shards")
    assert [len(p) for p in (dataset.train, dataset.validation, dataset.test)] == [16, 4, 4]
    assert "splits by the files test, train, validation" in dataset.summary()
    folder = load(f"folder:{tmp_path}/pets")
    assert folder.train.originals[3] == dataset.train.originals[3]
    assert tuple(folder.train.names) == tuple(dataset.train.names)


def test_a_shard_that_is_no_split_beside_others_is_refused(tmp_path):
    for name in ("train-0", "val-0", "extra"):
        write_tar(tmp_path / f"{name}.tar", {f"{name}{n}": c for n, c in TEN.items()})
    with pytest.raises(DataError, match="named by splits, but extra is not; rename it"):
        load(f"tar:{tmp_path}")


def test_a_plain_folder_with_dots_in_names_loses_no_picture(tmp_path):
    contents = {f"img.2020.{i:02}.jpg": picture(i) for i in range(10)}
    contents |= {"._img.jpg": b"", "__MACOSX/img.jpg": b"", "notes.pdf": b""}
    dataset = load(f"tar:{write_tar(tmp_path / 'a.tar', contents)}")
    assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 10


def test_one_picture_of_each_stem_is_taken_and_the_rest_told(tmp_path):
    contents = labelled(TEN, cls=lambda name: str(int(name[0]) % 2))
    contents |= {f"{i}.mask.png": picture(i, kind="PNG") for i in range(10)}
    dataset = load(f"tar:{write_tar(tmp_path / 'a.tar', contents)}", train_share=0.5)
    assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 10
    assert "10 pictures beside another of the same name" in dataset.summary()


def test_names_that_two_shards_have_are_two_pictures(tmp_path):
    for i in range(2):
        write_tar(tmp_path / f"{i}.tar", {n: picture(10 * i + int(n[0])) for n in TEN})
    dataset = load(f"tar:{tmp_path}")
    parts = (dataset.train, dataset.validation, dataset.test)
    names = [name for part in parts for name in part.names]
    assert sorted(names) == sorted(f"{i}:{n}" for i in range(2) for n in TEN)
    read = {part.originals[i] for part in parts for i in range(len(part))}
    assert len(read) == 20


def test_the_index_is_kept_and_a_shard_that_changes_is_told(tmp_path, cache, monkeypatch):
    for i in range(2):
        write_tar(tmp_path / f"{i}.tar", {f"{i}/{n}": c for n, c in TEN.items()})
    before = load(f"tar:{tmp_path}")
    assert len(list(cache.glob("jaxcon/tar/*.npz"))) == 2

    def never(path):
        raise AssertionError(path)

    with monkeypatch.context() as patch:
        patch.setattr("jaxcon.data.readers.tar.index_tar", never)
        assert_same(before, load(f"tar:{tmp_path}"))
    changed = {f"1/{n}": picture(50 + int(n[0]), size=(32, 32)) for n in TEN}
    write_tar(tmp_path / "1.tar", changed)
    now = load(f"tar:{tmp_path}")
    assert now.summary().endswith("; 1 file changed since last time (1.tar)")
    assert changes(fingerprint(before), fingerprint(now)) == "1 file replaced (1.tar)"
    assert changes(fingerprint(now), fingerprint(load(f"tar:{tmp_path}"))) is None
    for file in cache.glob("jaxcon/tar/*.npz"):
        file.write_bytes(b"damaged")
    assert_same(now, load(f"tar:{tmp_path}"))


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, cache):
    cache.write_bytes(b"a file in its place")
    load(f"tar:{write_tar(tmp_path / 'a.tar', TEN)}")


def test_pictures_are_read_in_other_processes_and_from_many_files(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxcon.data.readers.tar._OPEN", 2)
    for i in range(5):
        write_tar(tmp_path / f"{i}.tar", {f"{i}/{n}": c for n, c in TEN.items()})
    stored = load(f"tar:{tmp_path}").train.originals
    again = pickle.loads(pickle.dumps(stored))
    for i in range(len(stored)):
        assert again[i] == stored[i]
        assert again[i][:2] == b"\xff\xd8"
    assert str(tmp_path) in stored.place(0)


def test_bad_pictures_are_named_or_skipped(tmp_path):
    contents = {f"{c}/{i:03}.jpg": picture(i) for c in "ab" for i in range(100)}
    contents["a/007.jpg"] = contents["a/007.jpg"][:-400]
    contents["b/010.jpg"] = b"<html>"
    file = write_tar(tmp_path / "a.tar", contents)
    for _ in range(2):  # the second time from the index
        with pytest.raises(DataError, match=r"cannot read 2 of 200 images: .*a\.tar:a/007\.jpg \("):
            load(f"tar:{file}")
    dataset = load(f"tar:{file}", bad_images="skip")
    assert "cannot be read: 2 images (" in dataset.summary()
    parts = (dataset.train, dataset.validation, dataset.test)
    bad = [name for name in ("a/007.jpg", "b/010.jpg") if name in dataset.train.names]
    assert sum(map(len, parts)) == 198 + len(bad)
    for name in bad:
        row = dataset.train.names.index(name)
        view = dataset.train.images[row]
        alike = dataset.train.labels == dataset.train.labels[row]
        others = [i for i in np.flatnonzero(alike).tolist() if i != row]
        assert any((dataset.train.images[i] == view).all() for i in others)
    contents |= {f"b/{i:03}.jpg": b"" for i in range(20, 30)}
    with pytest.raises(
        DataError, match=r"cannot read 12 of 200 images: .*; at most 1% can be skip"
    ):
        load(f"tar:{write_tar(tmp_path / 'b.tar', contents)}", bad_images="skip")


def test_a_picture_that_an_error_blames_has_a_name(tmp_path):
    file = write_tar(tmp_path / "a.tar", TEN)
    dataset = load(f"tar:{file}")
    os.truncate(file, 600)
    with pytest.raises(
        DataError, match=r"a\.tar:\d\.jpg \(the tar file has become shorter\)"
    ) as caught:
        [dataset.train.originals[i] for i in range(len(dataset.train))]
    assert name_of(dataset, caught.value) in dataset.train.names


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ({"0.cls": b"\xff"}, "0.cls: is not UTF-8"),
        ({"0.json": "{"}, "0.json: not JSON"),
        ({"0.json": "[1]"}, "0.json: expected an object with label or caption, got [1]"),
        ({"0.json": '{"label": [1]}'}, "0.json: the class must be a number or a name, got [1]"),
        ({"0.json": '{"caption": 3}'}, "0.json: the caption must be a text or a list of texts"),
        ({"0.cls": "1", "1.cls": "2"}, "8 images of 10 have no class (2.jpg), others have"),
    ],
)
def test_what_lies_beside_a_picture_and_is_odd_is_named(tmp_path, beside, said):
    file = write_tar(tmp_path / "a.tar", TEN | beside)
    with pytest.raises(DataError) as caught:
        load(f"tar:{file}")
    assert said in str(caught.value)
    assert str(file) in str(caught.value)
    assert str(caught.value).isprintable()
