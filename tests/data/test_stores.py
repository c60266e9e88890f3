"""Prepared datasets in an object store: copied once, mended, and prepared where there is none."""

import shutil

import numpy as np
import pytest

from jaxcon.data.captions import load_pairs
from jaxcon.data.readers import tfds_prepare
from jaxcon.data.sources import DataError, load
from tests.data.readers.pictures import assert_same, members, picture, write_folder

URL = "s3://bucket/tfds"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "jaxcon" / "s3" / "bucket" / "tfds" / "jaxcon_digits"


def test_what_is_prepared_once_is_copied_by_others(objects, cache, digits, monkeypatch):
    load("digits", data_dir=URL)
    (version,) = (path.name for path in cache.iterdir())
    sent = set(objects.held)
    assert f"bucket/tfds/jaxcon_digits/{version}/dataset_info.json" in sent
    last = set(objects.history[-1]) - set(objects.history[-2])
    assert last == {f"bucket/tfds/jaxcon_digits/{version}/dataset_info.json"}

    shutil.rmtree(cache)  # another host
    monkeypatch.setattr(tfds_prepare, "_prepare", pytest.fail)
    copied = load("digits", data_dir=URL)
    np.testing.assert_array_equal(copied.train.images, digits.train.images)
    assert set(objects.held) == sent

    asked = []
    get = objects.get
    monkeypatch.setattr(
        objects, "get", lambda paths, files: asked.append(paths) or get(paths, files)
    )
    records = next(
        path for path in sorted((cache / version).iterdir()) if "array_record" in path.name
    )
    records.write_bytes(records.read_bytes()[:-9])  # killed while it was copied
    load("digits", data_dir=URL)
    assert asked == [[f"bucket/tfds/jaxcon_digits/{version}/{records.name}"]]


def test_what_was_half_sent_is_not_taken(objects, cache):
    load("digits", data_dir=URL)
    whole = dict(objects.held)
    shutil.rmtree(cache)
    objects.held = {name: c for name, c in whole.items() if not name.endswith("dataset_info.json")}
    assert len(load("digits", data_dir=URL).train) == 1259
    assert objects.held.keys() == whole.keys()


def test_a_folder_of_images_is_copied_and_kept_up_to_date(objects, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    contents = members()
    objects.held |= {f"bucket/pets/{name}": content for name, content in contents.items()}
    here = load(f"folder:{write_folder(tmp_path / 'pets', contents)}")
    assert_same(load("folder:gs://bucket/pets"), here)
    objects.held["bucket/pets/cat/0.jpg"] = picture(77, size=(41, 31))
    del objects.held["bucket/pets/dog/1.jpg"]
    changed = load("folder:gs://bucket/pets")
    assert sum(len(part) for part in (changed.train, changed.validation, changed.test)) == 19
    rows = [split.names for split in (changed.train, changed.validation, changed.test)]
    assert not any("dog/1.jpg" in names for names in rows)


def test_a_table_of_captions_in_a_store_is_found_with_its_images(objects, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    contents = members()
    rows = "\n".join(["image,caption", *(f"{name},number {i}" for i, name in enumerate(contents))])
    objects.held |= {f"bucket/pets/{name}": content for name, content in contents.items()}
    objects.held["bucket/pets/captions.csv"] = rows.encode()
    for place in ("gs://bucket/pets", "gs://bucket/pets/captions.csv"):
        assert len(load_pairs(f"folder:{place}").train) == 14


def test_nothing_in_a_store_is_told(objects):
    with pytest.raises(DataError, match="there is nothing in gs://bucket/nowhere"):
        load("folder:gs://bucket/nowhere")
