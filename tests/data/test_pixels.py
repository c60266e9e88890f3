"""Pixels of every kind of file: a ramp over the format's own range is 0, 64, 128, 255."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxcon.data.image_files import read_image
from jaxcon.data.pixels import default_side, fit_array, to_rgb
from jaxcon.data.splits import DataError, Unreadable
from tests.data.files import png, ramp, tiff

RAMP = [0, 64, 128, 255]
U8, I8 = np.array([RAMP], np.uint8), ramp(np.int8)
U16, I16 = ramp(np.uint16), ramp(np.int16)
U32, I32, F32 = ramp(np.uint32), ramp(np.int32), ramp(np.float32)


def packed(values, bits):
    """Values as a string of bits, the first the highest."""
    text = "".join(f"{value:0{bits}b}" for value in values)
    return np.frombuffer(int(text, 2).to_bytes(len(text) // 8, "big"), np.uint8)


def pgm(values, most):
    """Grey of PGM: bytes, or pairs of them from 256 tones on."""
    return f"P5 4 1 {most}\n".encode() + np.array(values, ">u2" if most > 255 else "u1").tobytes()


GREY = {
    "8-bit TIFF": tiff(U8),
    "signed 8-bit TIFF": tiff(I8, sample_format=2),
    "12-bit TIFF": tiff(packed([0, 0x400, 0x800, 0xFFF], 12)[None], bits=12, width=4),
    "16-bit TIFF": tiff(U16),
    "16-bit TIFF, big-endian": tiff(U16, order=">"),
    "signed 16-bit TIFF": tiff(I16, sample_format=2),
    "signed 16-bit TIFF, big-endian": tiff(I16, order=">", sample_format=2),
    "32-bit TIFF": tiff(U32),
    "signed 32-bit TIFF": tiff(I32, sample_format=2),
    "signed 32-bit TIFF, big-endian": tiff(I32, order=">", sample_format=2),
    "float TIFF": tiff(F32, sample_format=3),
    "float TIFF, big-endian": tiff(F32, order=">", sample_format=3),
    "16-bit TIFF, compressed": tiff(U16, deflate=True),
    "16-bit TIFF, big-endian, compressed": tiff(U16, order=">", deflate=True),
    "signed 16-bit TIFF, compressed": tiff(I16, sample_format=2, deflate=True),
    "signed 16, big-endian, compressed": tiff(I16, order=">", sample_format=2, deflate=True),
    "32-bit TIFF, compressed": tiff(U32, deflate=True),
    "signed 32, big-endian, compressed": tiff(I32, order=">", sample_format=2, deflate=True),
    "float TIFF, compressed": tiff(F32, sample_format=3, deflate=True),
    "float, big-endian, compressed": tiff(F32, order=">", sample_format=3, deflate=True),
    "white is zero, compressed": tiff(0xFFFF - U16, photometric=0, deflate=True),
    "white is zero, 8 bits": tiff(255 - U8, photometric=0),
    "white is zero, 16 bits": tiff(0xFFFF - U16, photometric=0),
    "white is zero, floats": tiff(1 - F32, photometric=0, sample_format=3),
    "16-bit PNG": png(4, [U16.astype(">u2").tobytes()], depth=16, colour=0),
    "8-bit PGM": pgm(RAMP, 255),
    "10-bit PGM": pgm([0, 256, 512, 1023], 1023),
    "16-bit PGM": pgm(U16[0], 65535),
    "plain PGM": b"P2 4 1 1023\n0 256 512 1023\n",
    "10-bit PPM": b"P6 4 1 1023\n" + np.repeat([0, 256, 512, 1023], 3).astype(">u2").tobytes(),
    "16-bit colour TIFF": tiff(np.repeat(U16[..., None], 3, axis=2), photometric=2),
    "16-bit colour PNG": png(4, [np.repeat(U16, 3).astype(">u2").tobytes()], depth=16, colour=2),
    "PFM": b"Pf\n4 1\n-1.0\n" + F32.tobytes(),
}


def read(content, folder):
    path = folder / "image"
    path.write_bytes(content)
    return read_image(path, None)


@pytest.mark.parametrize("kind", GREY)
def test_a_ramp_over_the_range_of_the_format(kind, tmp_path):
    pixels = read(GREY[kind], tmp_path)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.repeat([RAMP], 3, axis=0).T[None])


@pytest.mark.parametrize("kind", ["JPEG2000", "TIFF", "PNG"])
def test_sixteen_bits_as_pillow_writes_them(kind, tmp_path):
    file = io.BytesIO()
    compression = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    Image.fromarray(U16).save(file, kind, **compression)
    np.testing.assert_array_equal(read(file.getvalue(), tmp_path)[0, :, 0], RAMP)


@pytest.mark.parametrize("values", [U8, U16])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True])
def test_planes_of_colours_are_read_or_refused(values, order, deflate, tmp_path):
    colours = np.stack([values, values[:, ::-1], values], axis=-1)
    content = tiff(colours, order=order, photometric=2, planes=True, deflate=deflate)
    if values is U16 and not deflate:
        with pytest.raises(DataError, match="pillow misreads 16-bit colours in separate planes"):
            read(content, tmp_path)
    else:
        expected = np.stack([RAMP, RAMP[::-1], RAMP], axis=-1)
        np.testing.assert_array_equal(read(content, tmp_path)[0], expected)


def test_every_tone_of_16_bits_is_rounded(tmp_path):
    tones = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(tones / 65535 * 255)
    np.testing.assert_array_equal(read(tiff(tones), tmp_path)[..., 1], expected)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0, 1, 100, 255], "floats from 0 to 255, expected 0 to 1"),
        ([-0.5, 0, 0.5, 1], "floats from -0.5 to 1, expected 0 to 1"),
        ([0, 0.5, np.nan, 1], "NaN or infinite, expected 0 to 1"),
        ([0, 0.5, np.inf, 1], "NaN or infinite, expected 0 to 1"),
    ],
)
def test_floats_of_another_range_are_refused_with_theirs(values, said, tmp_path):
    with pytest.raises(DataError, match=said) as caught:
        read(tiff(np.array([values], np.float32), sample_format=3), tmp_path)
    assert str(tmp_path / "image") in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(Unreadable, match=said):
        fit_array(np.array([values], np.float32)[..., None], (1, 4, 1))


def test_floats_that_rounding_carried_past_one_are_white(tmp_path):
    values = np.array([[0, np.nextafter(np.float32(1), np.float32(2))]], np.float32)
    assert read(tiff(values, sample_format=3), tmp_path)[0, :, 0].tolist() == [0, 255]


def test_few_tones_of_32_bits_are_refused_and_not_one_flat_grey(tmp_path):
    with pytest.raises(
        DataError, match="run from 0 to 255, those of its format from -2,147,483,648"
    ):
        read(tiff(np.arange(256, dtype=np.int32)[None], sample_format=2), tmp_path)
    flat = tiff(np.full((2, 2), 2**31, np.uint32))
    assert (read(flat, tmp_path) == 128).all()


WHITE = [255, 255, 255]
CLEAR = {  # two pixels, of which the second is transparent; the grey of the first
    "16-bit grey, one clear tone": (
        png(2, [b"\x40\x00\x00\x00"], depth=16, colour=0, clear=[0]),
        64,
    ),
    "16-bit grey, only the very tone": (
        png(2, [b"\x40\x00\x40\x01"], depth=16, colour=0, clear=[0x4001]),
        64,
    ),
    "16-bit grey and alpha": (png(2, [b"\x40\0\xff\xff\0\0\0\0"], depth=16, colour=4), 64),
    "16-bit colour": (
        png(2, [b"\0" * 6 + b"\x40\0" * 3], depth=16, colour=2, clear=[0x4000] * 3),
        0,
    ),
    "8-bit grey": (png(2, [b"\x11\x22"], depth=8, colour=0, clear=[0x22]), 0x11),
    "4-bit grey": (png(2, [b"\x12"], depth=4, colour=0, clear=[2]), 0x11),
    "2-bit grey": (png(2, [b"\x60"], depth=2, colour=0, clear=[2]), 85),
    "1-bit grey": (png(2, [b"\x40"], depth=1, colour=0, clear=[1]), 0),
    "grey and alpha in TIFF": (tiff(np.array([[[9, 255], [9, 0]]], np.uint8), extra=2), 9),
    "premultiplied in TIFF": (tiff(np.array([[[9, 255], [0, 0]]], np.uint8), extra=1), 9),
    "colour, premultiplied": (
        tiff(np.array([[[9, 9, 9, 255], [0] * 4]], np.uint8), photometric=2, extra=1),
        9,
    ),
}


@pytest.mark.parametrize("kind", CLEAR)
def test_transparent_is_white_and_opaque_stays(kind, tmp_path):
    content, grey = CLEAR[kind]
    assert read(content, tmp_path)[0].tolist() == [[grey] * 3, WHITE]


def test_half_transparent_is_half_way_to_white():
    for mode, pixel in (("LA", (0, 128)), ("La", (0, 128)), ("RGBA", (0, 0, 0, 128))):
        assert to_rgb(Image.new(mode, (1, 1), pixel)).getpixel((0, 0)) == (127, 127, 127)


def test_palettes_with_transparency():
    image = Image.new("P", (1, 1), 0)
    image.putpalette([0, 0, 0])
    for clear in (0, b"\0"):
        image.info["transparency"] = clear
        assert to_rgb(image).getpixel((0, 0)) == (255, 255, 255)
    image = Image.new("P", (1, 1), 0)
    image.putpalette([0, 0, 0, 0], "RGBA")
    assert to_rgb(image).getpixel((0, 0)) == (255, 255, 255)


RED = (200, 40, 40)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"])
def test_other_modes_are_converted_and_opaque(mode):
    colour = Image.new("RGB", (2, 2), RED)
    pixel = np.array(to_rgb(colour.convert(mode)).getpixel((0, 0)), int)
    grey = round(0.299 * RED[0] + 0.587 * RED[1] + 0.114 * RED[2])
    expected = {"1": (0, 0, 0), "L": (grey,) * 3}.get(mode, RED)
    # A web palette has steps of 51, and the others round twice.
    np.testing.assert_allclose(pixel, expected, atol={"P": 26}.get(mode, 3))


@pytest.mark.parametrize(
    ("kind", "mode", "atol"),
    [
        ("JPEG", "RGB", 5),
        ("JPEG", "CMYK", 5),
        ("TIFF", "CMYK", 1),
        ("TIFF", "LAB", 3),
        ("TIFF", "YCbCr", 3),
        ("AVIF", "RGB", 8),
        ("WEBP", "RGB", 8),
        ("GIF", "RGB", 0),
        ("QOI", "RGB", 0),
        ("BMP", "RGB", 0),
        ("TGA", "RGB", 0),
    ],
)
def test_colour_survives_every_kind_of_file(kind, mode, atol, tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (16, 16), RED).convert(mode).save(file, kind)
    np.testing.assert_allclose(read(file.getvalue(), tmp_path)[8, 8].astype(int), RED, atol=atol)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_picture(kind, tmp_path):
    first, *others = (Image.new("RGB", (8, 8), (value,) * 3) for value in (0, 255, 255))
    file = io.BytesIO()
    first.save(file, kind, save_all=True, append_images=others)
    assert (read(file.getvalue(), tmp_path) < 8).all()


# What each orientation of EXIF says: rows and columns of the stored pixels, brought upright.
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.T,
    6: lambda x: x.T[:, ::-1],
    7: lambda x: x.T[::-1, ::-1],
    8: lambda x: x.T[::-1],
}


@pytest.mark.parametrize("turn", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "deep PNG"])
def test_photographs_are_turned_upright(kind, turn, tmp_path):
    stored = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    exif = Image.Exif()
    exif[0x0112] = turn
    file = io.BytesIO()
    if kind == "TIFF":
        file.write(tiff(stored, turn=turn))
    elif kind == "deep PNG":
        Image.fromarray(stored.astype(np.uint16) * 257).save(file, "PNG", exif=exif)
    else:
        lossless = {"lossless": True} if kind == "WEBP" else {}
        Image.fromarray(stored).convert("RGB").save(file, kind, exif=exif, **lossless)
    np.testing.assert_array_equal(read(file.getvalue(), tmp_path)[..., 0], UPRIGHT[turn](stored))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense"])
def test_damaged_exif_leaves_the_picture(exif, tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (6, 4), RED).save(file, "PNG", exif=exif)
    assert read(file.getvalue(), tmp_path).shape == (4, 6, 3)


def test_arrays_of_other_dtypes_are_brought_to_8_bits():
    for values in (U16, I16, F32, U8):
        np.testing.assert_array_equal(fit_array(values[..., None], (1, 4, 1))[0, :, 0], RAMP)
    resized = fit_array(np.full((8, 8, 3), 0x8000, np.uint16), (2, 2, 3))
    assert (resized == 128).all()


def test_the_side_is_the_median_of_many():
    assert default_side([(1, 1), (1000, 40), (30, 40), (50, 60)]) == 30
    assert default_side([(1, 1), (40, 40), (48, 48), (50, 50)]) == 40
    assert default_side([(3000, 4000)] * 3 + [(8, 8)]) == 224
    assert default_side([(160, 160)]) == 160
    assert default_side([(161, 200)]) == 224
