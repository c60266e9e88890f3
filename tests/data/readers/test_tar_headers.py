"""Headers of tar files beside Python's `tarfile`; and tar files that are cut, damaged or compressed."""

import gzip
import io
import tarfile

import pytest

from jaxcon.data.readers.tar_headers import read_headers
from jaxcon.data.splits import DataError
from tests.data.readers.pictures import write_tar

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
NAMES = ["a.jpg", "deep/" * 20 + "b.jpg", "grün/ä.jpg", "x" * 99 + ".jpg", "y" * 98 + ".j"]


def by_tarfile(file):
    with tarfile.open(file) as tar:
        return [(m.name, m.offset_data, m.size) for m in tar if m.isreg()]


@pytest.mark.parametrize("form", FORMATS)
def test_members_are_those_of_tarfile(tmp_path, form):
    names = [name for name in NAMES if form != "ustar" or len(name.encode()) <= 100 or "/" in name]
    if form != "ustar":
        names += ["z" * 300 + ".jpg", "far/" * 60 + "c.jpg"]
    sizes = [0, 1, 511, 512, 513, 5000, 70_000]
    contents = {name: bytes(sizes[i % 7]) for i, name in enumerate(names)}
    file = write_tar(tmp_path / "a.tar", contents, form=FORMATS[form])
    found = read_headers(str(file))
    assert [tuple(member) for member in found.members] == by_tarfile(file)
    assert found.ended
    assert found.links == 0


def test_what_is_no_file_is_passed_over(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo(f"of type {kind!r}")
            member.type, member.linkname = kind, "elsewhere" * 30
            tar.addfile(member)
        member = tarfile.TarInfo("a.jpg")
        member.size, member.pax_headers = 3, {"comment": "=a = b\n" * 99}
        tar.addfile(member, io.BytesIO(b"abc"))
    found = read_headers(str(tmp_path / "a.tar"))
    assert [tuple(member) for member in found.members] == by_tarfile(tmp_path / "a.tar")
    assert found.links == 2


def test_names_that_are_not_utf_8_and_sizes_beyond_octal(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        member = tarfile.TarInfo("caf\udce9.jpg")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
        member = tarfile.TarInfo("huge.jpg")
        member.size = 2**36
        tar.addfile(member)
    with pytest.raises(DataError, match=r"ends within huge\.jpg at byte [\d,]+, as if its copy"):
        read_headers(str(tmp_path / "a.tar"))
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[:1024] + bytes(1024))
    assert [m.name for m in read_headers(str(tmp_path / "a.tar")).members] == ["caf\udce9.jpg"]


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (700, "ends within a.jpg at byte 700"),
        (512 + 1024 + 100, "ends within a header at byte 1,636, after a.jpg"),
        (2 * (512 + 1024) + 600, "ends within c.jpg at byte 3,672"),
    ],
)
def test_a_file_that_is_cut_off_is_named(tmp_path, cut, said):
    file = write_tar(tmp_path / "a.tar", {f"{name}.jpg": bytes([1]) * 1000 for name in "abc"})
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(DataError, match="copy it again") as caught:
        read_headers(str(file))
    assert said in str(caught.value)
    assert str(file) in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_file_without_its_end_is_known(tmp_path):
    file = write_tar(tmp_path / "a.tar", {"a.jpg": bytes(1000)})
    file.write_bytes(file.read_bytes()[: 512 + 1024])
    found = read_headers(str(file))
    assert len(found.members) == 1
    assert not found.ended


def test_damage_and_other_kinds_of_files_are_told(tmp_path):
    file = write_tar(tmp_path / "a.tar", {"a.jpg": bytes(600), "b.jpg": bytes(600)})
    content = bytearray(file.read_bytes())
    content[512 + 1024 + 3] ^= 1  # a letter of the second name
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"byte 1,536 after a\.jpg begins no member; copy it or"):
        read_headers(str(file))
    file.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(DataError, match=r"a\.tar is compressed, .*; run gunzip on it"):
        read_headers(str(file))
    file.write_bytes(b"<html>" * 200)
    with pytest.raises(DataError, match=r"byte 0 begins no member \(it begins with b'<html>"):
        read_headers(str(file))
    file.write_bytes(b"<html>")
    with pytest.raises(DataError, match="ends within a header at byte 6"):
        read_headers(str(file))
    with pytest.raises(DataError, match=r"cannot read the tar file .*: No such file"):
        read_headers(str(tmp_path / "nowhere.tar"))
