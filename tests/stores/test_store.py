"""Addresses, and what a store's errors become: one line each."""

from pathlib import Path

import fsspec
import pytest

from jaxcon.stores import Store, StoreError, address


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("gs://bucket/run", "gs://bucket/run"),
        (Path("gs://bucket/a/run"), "gs://bucket/a/run"),
        ("s3:/bucket/run//", "s3://bucket/run"),
        ("runs/gs:/x", None),
        ("/data/s3", None),
        ("gs", None),
    ],
)
def test_what_is_an_address(typed, meant):
    assert address(typed) == meant


@pytest.mark.parametrize(
    "typed", ["gs://", "gs://bucket", "s3:///", "s3://bucket//run", "gs://b/../c"]
)
def test_an_address_needs_a_bucket_and_a_folder(typed):
    with pytest.raises(ValueError, match=r"expected a bucket and a folder in it, (gs|s3)://BUCKET"):
        address(typed)


@pytest.mark.parametrize(
    "typed", ["gs://b/run*", "gs://b/[1]", "s3://b/a b", "s3://b/a?versionId=3"]
)
def test_an_address_is_no_pattern(typed):
    with pytest.raises(ValueError, match="name a folder without it"):
        address(typed)


@pytest.mark.parametrize("typed", ["az://b/run", "https://host/run", "file:///data/run"])
def test_other_addresses_are_refused(typed):
    with pytest.raises(ValueError, match="expected a path of this machine, gs://BUCKET/FOLDER or"):
        address(typed)


def test_what_is_written_is_listed_and_read(objects, tmp_path):
    store = Store("gs://bucket/run")
    assert store.names() == store.sizes() == {}
    assert store.read("a.txt") is None
    store.write("a.txt", b"123")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.txt").write_bytes(b"4567")
    store.upload(tmp_path, ["deep/b.txt"])
    Store("gs://bucket/run2").write("c.txt", b"")  # begins alike
    assert store.names() == {"a.txt": 3, "deep": None}
    assert store.sizes() == {"a.txt": 3, "deep/b.txt": 4}
    assert store.sizes("deep") == {"deep/b.txt": 4}
    store.download(tmp_path / "copy", ["a.txt", "deep/b.txt"])
    assert (tmp_path / "copy" / "deep" / "b.txt").read_bytes() == b"4567"
    with pytest.raises(FileNotFoundError):
        store.download(tmp_path, ["gone.txt"])
    with pytest.raises(StoreError, match="leads out of the folder"):
        store.download(tmp_path / "copy", ["../d.txt"])
    store.remove(["a.txt", "gone.txt"])
    assert store.sizes() == {"deep/b.txt": 4}


def test_only_the_first_creates(objects):
    store = Store("s3://bucket/run")
    assert store.create("lease", b"mine")
    assert not store.create("lease", b"yours")
    assert store.read("lease") == b"mine"


class NoCredentialsError(Exception):
    """botocore's."""


@pytest.mark.parametrize(
    ("url", "error", "said"),
    [
        ("s3://wrong/run", None, "there is no bucket wrong; make it, or name another"),
        (
            "gs://bucket/run",
            PermissionError("Access Denied"),
            "cannot be written to (Access Denied); the "
            "account needs the right to list, read, write and remove objects of bucket bucket",
        ),
        (
            "gs://bucket/run",
            OSError("Forbidden: o"),
            "cannot be written to (Forbidden: o); the account",
        ),
        (
            "s3://bucket/run",
            NoCredentialsError("Unable"),
            "found no credentials; set AWS_ACCESS_KEY_ID",
        ),
        ("gs://bucket/run", NoCredentialsError(), "found no credentials; run `gcloud auth applic"),
        (
            "s3://bucket/run",
            ConnectionError("no\nroute"),
            "cannot be written to (ConnectionError: no route)",
        ),
    ],
)
def test_what_refuses_is_one_line(objects, url, error, said):
    objects.refused = error
    with pytest.raises(StoreError) as told:
        Store(url).check_writable("--workdir")
    assert str(told.value).startswith(f"--workdir={url}: {said}")
    assert "\n" not in str(told.value)
    assert objects.held == {}


def test_trying_to_write_leaves_nothing(objects):
    Store("s3://bucket/run").check_writable("--workdir")
    assert objects.history != []
    assert objects.held == {}


@pytest.mark.parametrize(("kind", "package"), [("gs", "gcsfs"), ("s3", "s3fs")])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, kind, package):
    def missing(*_, **__):
        raise ImportError(f"Please install {package}")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(StoreError, match=rf"needs {package}, .* pip install 'jaxcon\[{kind}\]'"):
        Store(f"{kind}://bucket/run")
