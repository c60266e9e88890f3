"""Which files are images, what is said of those that cannot be read, and the check of many."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcon.data.encoded import EXTENSIONS
from jaxcon.data.image_files import check_images, read_image
from jaxcon.data.photographs import Photographs
from jaxcon.data.splits import DataError
from jaxcon.data.stored import StoredFiles
from tests.data.files import png, tiff

ROOT = Path(__file__).parents[2]


def write(path, size=(12, 10), kind=None):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8)).save(path, kind)
    return path


def refusal(path):
    """What is said of a file, the same by the check of headers and by reading it."""
    with pytest.raises(DataError) as checked:
        check_images([path])
    with pytest.raises(DataError) as read:
        read_image(path, 8)
    assert str(checked.value) == str(read.value)
    assert f"cannot read the image {path} (" in str(read.value)
    assert "\n" not in str(read.value)
    return str(read.value)


def test_what_pillow_reads_is_read():
    for name in (".avif", ".jfif", ".webp", ".jp2", ".tiff", ".pgm", ".jpg", ".tga", ".bmp"):
        assert name in EXTENSIONS
    for name in (".txt", ".mpg", ".h5", ".eps", ".heic", ".svg"):  # no pictures, or not read here
        assert name not in EXTENSIONS


def test_an_installed_plugin_is_used(tmp_path):
    """A package by the name of pillow-heif's, which registers .heic as it does."""
    (tmp_path / "pillow_heif.py").write_text(
        "from PIL import Image, PngImagePlugin\n"
        "def register_heif_opener():\n"
        "    Image.register_extension('PNG', '.heic')\n"
    )
    code = "from jaxcon.data.encoded import EXTENSIONS; print('.heic' in EXTENSIONS)"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "True"


BEGINNINGS = {
    "an empty file": (b"", "the file is empty"),
    "zeros": (bytes(1000), "nothing but zeros"),
    "text": (b"hello", "not an image that pillow can read"),
    "a web page": (b"<!DOCTYPE html><html>", "a web page.*download it again"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS.*run git lfs pull"),
    "zip": (b"PK\x03\x04" + bytes(99), "a zip file.*unpack it"),
    "HEIC by another name": (b"\0\0\0\x18ftypheic" + bytes(99), "HEIC.*pip install pillow-heif"),
    "JPEG XL": (b"\xff\x0a" + bytes(99), "JPEG XL.*pip install pillow-jxl-plugin"),
    "doubles": (tiff(np.zeros((2, 2)), sample_format=3), "kind of TIFF.*save it as 8-bit"),
    "half floats": (tiff(np.zeros((2, 2), np.float16), sample_format=3), "kind of TIFF"),
    "float colour": (
        tiff(np.zeros((2, 2, 3), np.float32), photometric=2, sample_format=3),
        "kind of TIFF",
    ),
    "16-bit grey and alpha": (tiff(np.zeros((2, 2, 2), np.uint16), extra=2), "kind of TIFF"),
    "big TIFF of doubles": (b"II+\0\x08\0\0\0" + bytes(99), "kind of TIFF"),
    "a large bomb": (
        png(2, [b"\0"], depth=1, colour=0, size=(100_000, 100_000)),
        "100,000 x 100,000 pixels; more than 179 megapixels could be a decompression bomb",
    ),
    "a bomb": (
        png(2, [b"\0"], depth=1, colour=0, size=(19_000, 10_000)),
        r"19,000 x 10,000 pixels; more than 179 megapixels could be a decompression bomb\)",
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", BEGINNINGS)
def test_what_a_file_is_instead_of_an_image(kind, tmp_path):
    content, said = BEGINNINGS[kind]
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    message = refusal(path)
    assert pytest.RaisesExc(DataError, match=said).matches(DataError(message)), message
    if "bomb" in kind:
        assert "repair" not in message
        assert "damaged" not in message


@pytest.mark.parametrize("kind", ["png", "jpg", "gif"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_file_cut_short_is_found_by_the_check(kind, share, tmp_path):
    path = write(tmp_path / f"a.{kind}", (64, 64))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refusal(path)


@pytest.mark.parametrize("kind", ["png", "jpg", "gif"])
def test_bytes_after_the_end_do_no_harm(kind, tmp_path):
    path = write(tmp_path / f"a.{kind}")
    path.write_bytes(path.read_bytes() + b"a phone's own notes")
    assert check_images([path]).tolist() == [[10, 12]]


def test_files_that_may_not_be_read(tmp_path, monkeypatch):
    path = write(tmp_path / "a.png")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert "(Permission denied); make the file readable" in refusal(path)
    monkeypatch.undo()
    assert "(No such file or directory); bring the file back" in refusal(tmp_path / "gone.png")


def test_names_that_are_no_text_are_escaped(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9\n.png")
    with open(path, "wb") as file:
        file.write(b"nonsense")
    with pytest.raises(DataError) as caught:
        check_images([os.fsdecode(path)])
    assert rf"{tmp_path}/caf\xe9\n.png (not an image" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.filterwarnings("error")
def test_large_photographs_pass_without_a_warning(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(png(10_000, [bytes(1250)] * 9500, depth=1, colour=0))
    assert check_images([path] * 20).tolist() == [[9500, 10_000]] * 20  # 95 megapixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # of which Pillow warns
    write(path, (20, 20))
    assert read_image(path, 8).shape == (8, 8, 3)
    path.write_bytes(tiff(np.zeros((20, 20), np.uint8)))  # whose tiles are looked at once more
    assert read_image(path, 8).shape == (8, 8, 3)
    assert Image.MAX_IMAGE_PIXELS == 300


@pytest.mark.filterwarnings("error")
def test_the_limit_of_a_program_is_kept(tmp_path, monkeypatch):
    path = write(tmp_path / "a.png", (20, 20))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert check_images([path]).tolist() == [[20, 20]]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "more than 0 megapixels could be a decompression bomb" in refusal(path)


def test_all_that_fail_are_counted_and_the_first_named(tmp_path):
    paths = [str(write(tmp_path / f"{i}.png")) for i in range(20)]
    for i in (3, 5, 8, 13):
        Path(paths[i]).write_bytes(b"")
    for read in (lambda: check_images(paths), Photographs(StoredFiles(paths), (8, 8, 3)).read_all):
        with pytest.raises(
            DataError, match=r"cannot read 4 of 20 images: .*and 1 more; repair it"
        ) as e:
            read()
        for i in (3, 5, 8):
            assert f"{paths[i]} (the file is empty)" in str(e.value)


def test_an_error_survives_the_way_from_another_process(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        read_image(tmp_path / "a.png", 8)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.path == tmp_path / "a.png"
