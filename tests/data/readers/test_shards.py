"""Which files a pattern means, here and in an object store."""

import pytest

from jaxcon.data.readers.shards import expand, find_shards
from jaxcon.data.sources import load
from jaxcon.data.splits import DataError
from tests.data.readers.pictures import picture, write_tar


def shards(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return [folder / name for name in names]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("00.tar", [0]),
        ("{00..02}.tar", [0, 1, 2]),
        ("{00,02}.tar", [0, 2]),
        ("*.tar", [0, 1, 2]),
        ("0[12].tar", [1, 2]),
        ("{0..0}{1..2}.tar", [1, 2]),
        ("", [0, 1, 2, 3]),
        ("b/{03..03}.TAR", [3]),
        ("{b/03,00}.*", [3, 0]),
    ],
)
def test_patterns(tmp_path, pattern, found):
    files = shards(tmp_path, "00.tar", "01.tar", "02.tar", "b/03.TAR", ".04.tar", "notes.txt")
    assert find_shards(f"{tmp_path}/{pattern}", "tar", (".tar",)) == [files[i] for i in found]


def test_braces_of_many_numbers():
    assert len(expand("{00000..41454}.tar")) == 41_455
    assert expand("{8..10}") == ["8", "9", "10"]
    for odd in ("{}", "{a}", "{5..3}", "{0..9999999}", "{0..9999}{0..9999}"):
        with pytest.raises(DataError, match=r"expected at most 1,000,000|is neither a range of"):
            expand(odd)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", "tar: names no file"),
        ("nowhere/a.tar", "there is no file .*nowhere/a.tar; tar: takes .tar files"),
        ("a.Tar", r"there is no file .*a\.Tar; did you mean .*a\.tar\?"),
        ("{0..3}x.tar", "there is no file .*0x.tar"),
        ("{a,b,c}.tar", r"2 of 3 files of .* are missing \(b\.tar, c\.tar\); bring them, or name"),
        ("empty", "there is no .tar file in .*empty or below it"),
    ],
)
def test_what_is_missing_is_named(tmp_path, pattern, said):
    shards(tmp_path, "a.tar", "empty/notes.txt")
    with pytest.raises(DataError, match=said) as caught:
        find_shards(f"{tmp_path}/{pattern}" if pattern else "", "tar", (".tar",))
    assert str(caught.value).isprintable()


@pytest.fixture
def bucket(objects, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for i in range(3):
        contents = {f"{i}{j}.jpg": picture(10 * i + j) for j in range(5)}
        file = write_tar(tmp_path / f"{i:03}.tar", contents)
        objects.held[f"bucket/data/{i:03}.tar"] = file.read_bytes()
    objects.held["bucket/data/notes.txt"] = b"no shard"
    return objects


@pytest.mark.parametrize("pattern", ["{000..002}.tar", "*.tar", ""])
def test_shards_of_a_store_are_copied_once(bucket, tmp_path, pattern, monkeypatch):
    url = f"tar:gs://bucket/data/{pattern}".rstrip("/")
    dataset = load(url)
    assert len(dataset.train) == 10
    assert sorted(f.name for f in (tmp_path / "cache/jaxcon/gs/bucket/data").iterdir()) == [
        "000.tar",
        "001.tar",
        "002.tar",
    ]
    monkeypatch.setattr(bucket, "get", lambda paths, files: 1 / 0)
    assert tuple(load(url).train.names) == tuple(dataset.train.names)


def test_what_a_store_lacks_is_named(bucket):
    with pytest.raises(DataError, match=r"gs://bucket/data: 1 of 4 files are missing \(003\.tar\)"):
        load("tar:gs://bucket/data/{000..003}.tar")
    with pytest.raises(DataError, match=r"gs://bucket/data: 1 of 1 files are missing \(x\*\.tar\)"):
        load("tar:gs://bucket/data/x*.tar")
