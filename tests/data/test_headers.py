"""Sizes by the first and last bytes: the same as Pillow's, and never of a file that is cut off."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxcon.data.headers import HEAD, TAIL, quick_size, size_of
from jaxcon.data.splits import Unreadable

SIZES = [(1, 1), (17, 300), (640, 480)]


def encoded(size, kind, **settings):
    content = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(content, kind, **settings)
    return content.getvalue()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"comment": "x" * 1500, "icc_profile": b"y" * 100}),
        ("PNG", {}),
    ],
)
def test_usual_pictures_are_known_by_their_ends(size, kind, settings):
    content = encoded(size, kind, **settings)
    assert quick_size(content[:HEAD], content[-TAIL:]) == size[::-1]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("JPEG", {"icc_profile": b"y" * 60_000}),
        ("WEBP", {}),
        ("GIF", {}),
        ("TIFF", {}),
        ("BMP", {}),
    ],
)
def test_pillow_is_asked_for_the_rest(kind, settings):
    content = encoded((64, 48), kind, **settings)
    assert quick_size(content[:HEAD], content[-TAIL:]) is None
    assert size_of(content, "a") == (48, 64)
    assert size_of(np.zeros((4, 5, 3), np.uint8), "a") == (4, 5)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
@pytest.mark.parametrize("kept", [0, 10, 0.5, -100])
def test_what_is_cut_off_is_told(kind, kept):
    content = encoded((64, 48), kind)
    cut = content[: int(kept * len(content)) if isinstance(kept, float) else kept]
    found = size_of(cut, "the place")
    assert isinstance(found, Unreadable)
    assert found.path == "the place"


def test_more_bytes_after_the_end_are_no_damage():
    content = encoded((64, 48), "JPEG") + b"appended by a camera"
    assert size_of(content, "a") == (48, 64)


def test_sizes_that_no_picture_has_are_left_to_pillow(monkeypatch):
    content = bytearray(encoded((64, 48), "PNG"))
    content[16:24] = bytes(8)
    assert quick_size(bytes(content[:HEAD]), bytes(content[-TAIL:])) is None
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    found = size_of(encoded((64, 48), "JPEG"), "a")
    assert isinstance(found, Unreadable)
    assert "decompression bomb" in str(found)
