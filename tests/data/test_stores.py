"""Prepared datasets in an object store: copied once, mended, and prepared where there is none."""

import shutil

import numpy as np
import pytest

from jaxcon.data.readers import tfds_prepare
from jaxcon.data.sources import DataError, load

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


def test_images_in_a_store_are_refused_with_what_to_do():
    with pytest.raises(
        DataError, match=r"folder:gs://bucket/pets is in an object store, .*; copy it"
    ):
        load("folder:gs://bucket/pets")
