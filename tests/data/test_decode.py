"""Pixels of crops beside Pillow's of the same boxes, for every kind of picture."""

import io

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from benchmarks.photographs import jpeg, pixels
from jaxcon.data.crops import Box, Crops
from jaxcon.data.decode import crop_views
from jaxcon.data.encoded import upright
from tests.data.files import png

SIDE = 224


def by_pillow(content, box, side=SIDE):
    """Decodes everything, crops, and resizes bicubically."""
    top, left, height, width = (round(edge) for edge in box[:4])
    part = upright(io.BytesIO(content)).crop((left, top, left + width, top + height))
    view = part.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if box.flipped else view)


def drawn(size, count, side=SIDE):
    """Random boxes, with edges that are whole pixels at every scale of decoding."""
    crops = Crops(side)
    for row in range(count):
        box = crops.box(size, seed=1, step=2, row=row, view=0)
        top, left = 8 * round(box.top / 8), 8 * round(box.left / 8)
        height, width = max(8, 8 * round(box.height / 8)), max(8, 8 * round(box.width / 8))
        yield Box(top, left, min(height, size[0] - top), min(width, size[1] - left), box.flipped)


def difference(one, other):
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def encoded(image, kind, **settings):
    content = io.BytesIO()
    image.save(content, kind, **settings)
    return content.getvalue()


@pytest.mark.parametrize(
    ("size", "count", "scales", "limit"),
    [((376, 500), 12, {1}, 2.0), ((1504, 2000), 6, {1, 2, 4}, 4.0)],
)
def test_pixels_are_close_to_those_of_pillow(size, count, scales, limit, monkeypatch):
    height, width = size
    found, decode = set(), simplejpeg.decode_jpeg

    def spy(content, **settings):
        decoded = decode(content, **settings)
        found.add(height // decoded.shape[0])
        return decoded

    monkeypatch.setattr(simplejpeg, "decode_jpeg", spy)
    contents = [jpeg(width, height, seed) for seed in (0, 1)]
    differences = []
    for row, box in enumerate(drawn(size, count)):
        content = contents[row % 2]
        (view,) = crop_views(content, lambda size, box=box: [box], side=SIDE)
        differences.append(difference(view, by_pillow(content, box)))
    assert np.mean(differences) < limit
    assert max(differences) < 2 * limit
    assert found <= scales
    assert len(found) > 1 or scales == {1}


def test_one_small_crop_keeps_its_pixels_beside_a_large_one():
    """Both are cut out of one picture, at the scale that the smaller one allows."""
    content = jpeg(960, 720, 0)
    large, small = Box(0, 0, 720, 720, False), Box(100, 100, 64, 64, False)
    views = crop_views(content, lambda size: [large, small], side=64)
    assert difference(views[1], np.asarray(upright(io.BytesIO(content)))[100:164, 100:164]) < 0.1
    (alone,) = crop_views(content, lambda size: [large], side=64)
    assert difference(views[0], alone) < 5


def kinds():
    rgb = Image.fromarray(pixels(120, 80, 0))
    alpha = np.dstack([np.asarray(rgb), np.full((80, 120), 128, np.uint8)])
    deep = np.arange(80 * 120, dtype=np.uint16).reshape(80, 120) * 6
    yield "grey", encoded(rgb.convert("L"), "JPEG", quality=95)
    yield "CMYK", encoded(rgb.convert("CMYK"), "JPEG", quality=95)
    yield "progressive", encoded(rgb, "JPEG", progressive=True, quality=95)
    yield "MPO", encoded(rgb, "MPO", save_all=True, append_images=[rgb.rotate(90)], quality=95)
    yield "4:4:4", encoded(rgb, "JPEG", subsampling=0, quality=95)
    yield "PNG", encoded(rgb, "PNG")
    yield "palette", encoded(rgb.convert("P"), "PNG")
    yield "16 bits", encoded(Image.fromarray(deep), "PNG")
    yield "alpha", encoded(Image.fromarray(alpha), "PNG")
    yield "WebP", encoded(rgb, "WEBP", quality=95)
    yield "GIF", encoded(rgb.convert("P"), "GIF")
    yield "TIFF", encoded(rgb, "TIFF")
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"turned {orientation}", encoded(rgb, "JPEG", exif=exif, quality=95)
    yield "turned PNG", encoded(rgb, "PNG", exif=exif)


@pytest.mark.parametrize(("kind", "content"), list(kinds()), ids=lambda value: str(value)[:12])
def test_every_kind_of_picture_is_that_which_evaluation_sees(kind, content):
    whole = np.asarray(upright(io.BytesIO(content)))
    height, width = whole.shape[:2]
    sizes = []

    def boxes(size):
        sizes.append(size)
        return [Box(8, 16, 48, 48, False), Box(8, 16, 48, 48, True)]

    views = crop_views(content, boxes, side=48)
    assert sizes == [(height, width)]
    assert difference(views[0], whole[8:56, 16:64]) < 0.5
    assert difference(views[1], whole[8:56, 16:64][:, ::-1]) < 0.5


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_turned_photograph_is_decoded_at_a_scale_too(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(pixels(640, 480, 1)), "JPEG", exif=exif, quality=95)
    box = Box(40, 80, 320, 240, False)
    (view,) = crop_views(content, lambda size: [box], side=60)
    assert difference(view, by_pillow(content, box, 60)) < 4


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (5, 3), (7, 3000)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_tiny_and_oblong_pictures_have_crops(size, kind):
    content = encoded(Image.new("RGB", size[::-1], (90, 90, 90)), kind)
    crops = Crops(32)

    def boxes(size):
        return [crops.box(size, seed=0, step=0, row=row, view=0) for row in range(8)]

    views = crop_views(content, boxes, side=32)
    assert views.shape == (8, 32, 32, 3)
    assert difference(views, np.full_like(views, 90)) < 2


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pixels_may_be_stored_instead_of_bytes(channels):
    stored = np.full((40, 30, channels), 255, np.uint8)
    stored[..., 0] = 60
    (view,) = crop_views(stored, lambda size: [Box(0, 0, *size, False)], side=8)
    expected = [60, 60, 60] if channels == 1 else [60, 255, 255]
    assert (view == expected).all()


def test_what_shrinks_along_one_side_and_grows_along_the_other_is_antialiased():
    """Columns of 0 and 255 in turn, at a hundredth of their number, are grey."""
    stripes = np.zeros((4, 1000, 3), np.uint8)
    stripes[:, ::2] = 255
    (view,) = crop_views(stripes, lambda size: [Box(0, 0, 4, 1000, False)], side=10)
    np.testing.assert_allclose(view, 127.5, atol=2)


def test_the_pixels_do_not_depend_on_the_threads_of_opencv():
    content = jpeg(500, 376, 0)
    views = []
    for threads in (0, 1, 4):
        crop_views(content, lambda size: [Box(0, 0, 8, 8, False)], side=8)  # which sets its number
        cv2.setNumThreads(threads)
        views.append(crop_views(content, lambda size: list(drawn(size, 6)), side=SIDE))
    cv2.setNumThreads(0)
    np.testing.assert_array_equal(views[0], views[1])
    np.testing.assert_array_equal(views[0], views[2])


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_jpeg_cut_short_is_refused_at_any_scale(share):
    content = jpeg(320, 240, 0)
    for side in (240, 30):
        with pytest.raises(OSError, match=r"truncated|cannot identify"):
            crop_views(
                content[: int(share * len(content))],
                lambda size: [Box(0, 0, 240, 240, False)],
                side=side,
            )


def test_a_bomb_is_refused_before_it_is_decoded():
    content = png(2, [b"\0"], depth=1, colour=0, size=(100_000, 100_000))
    with pytest.raises(ValueError, match="decompression bomb"):
        crop_views(content, lambda size: [Box(0, 0, 8, 8, False)], side=8)
