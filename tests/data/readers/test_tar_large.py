"""200,000 pictures in tar shards: indexed once, in little memory, and only what changed again."""

import pickle
import tarfile

import pytest

from jaxcon.data.fingerprint import changes, fingerprint
from jaxcon.data.readers import tar
from jaxcon.data.sources import load
from tests.data.readers.pictures import picture

NUMBER, SHARDS = 200_000, 20
MOST = 300  # bytes a picture, in memory and on disk


def write_shard(file, first, number, content):
    """Pictures that differ in a comment at their end, with a class beside each."""
    with file.open("wb") as out:
        for i in range(first, first + number):
            stem, label = f"{i % 1000:04}/{i:08}", b"%d" % (i % 1000)
            data = content[:-2] + b"\xff\xfe\x00\x0a%08d\xff\xd9" % i
            for name, content_of in ((f"{stem}.jpg", data), (f"{stem}.cls", label)):
                member = tarfile.TarInfo(name)
                member.size = len(content_of)
                out.write(member.tobuf(tarfile.USTAR_FORMAT) + content_of)
                out.write(bytes(-len(content_of) % 512))
        out.write(bytes(1024))


@pytest.mark.slow
def test_two_hundred_thousand(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    content = picture(0, size=(170, 170))[:2000] + b"\xff\xd9"
    for i in range(SHARDS):
        write_shard(tmp_path / f"{i:03}.tar", i * NUMBER // SHARDS, NUMBER // SHARDS, content)
    read, index_tar = [], tar.index_tar

    def counted(path):
        read.append(path)
        return index_tar(path)

    monkeypatch.setattr(tar, "index_tar", counted)
    # Views are not read: these pictures are cut short, which only their decoder would see.
    before = load(f"tar:{tmp_path}/{{000..019}}.tar", memory_limit=0)
    assert len(read) == SHARDS
    assert before.train.image_shape == (224, 224, 3)
    assert sum(map(len, (before.train, before.validation, before.test))) == NUMBER
    on_disk = sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*.npz"))
    assert NUMBER < on_disk < MOST * NUMBER
    assert len(pickle.dumps(before)) < MOST * NUMBER
    load(f"tar:{tmp_path}/*.tar", memory_limit=0)
    assert len(read) == SHARDS
    write_shard(tmp_path / "007.tar", 7 * NUMBER // SHARDS, NUMBER // SHARDS - 1, content)
    now = load(f"tar:{tmp_path}", memory_limit=0)
    assert [path[-7:] for path in read[SHARDS:]] == ["007.tar"]
    said = changes(fingerprint(before), fingerprint(now))
    assert said == "1 file replaced (007.tar)"
