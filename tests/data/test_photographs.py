"""What evaluation sees of a photograph: the standard view, written out by hand with Pillow."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from benchmarks.photographs import pixels
from jaxcon.augment import to_float
from jaxcon.data.photographs import Photographs
from jaxcon.data.preprocessing import prepare, preprocessing
from jaxcon.data.splits import DataError, ImageSource, StoredImages
from jaxcon.data.stored import StoredFiles, StoredRows

SIZES = [(500, 375), (333, 517), (256, 256), (40, 30), (1, 300), (1000, 30)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    paths = [str(folder / f"{number}.png") for number in range(len(SIZES))]
    for number, (path, (width, height)) in enumerate(zip(paths, SIZES, strict=True)):
        Image.fromarray(pixels(width, height, number)).save(path)
    return paths


def standard_view(path, side, shorter):
    """torchvision's Resize(shorter), CenterCrop(side)."""
    image = Image.open(path)
    width, height = image.size
    if width <= height:
        resized = image.resize((shorter, int(shorter * height / width)), Image.Resampling.BICUBIC)
    else:
        resized = image.resize((int(shorter * width / height), shorter), Image.Resampling.BICUBIC)
    top = round((resized.height - side) / 2.0)
    left = round((resized.width - side) / 2.0)
    return np.asarray(resized.crop((left, top, left + side, top + side)))


@pytest.mark.parametrize(("side", "shorter"), [(224, 256), (112, 128), (96, 110)])
def test_the_view_is_the_standard_one(files, side, shorter):
    views = Photographs(StoredFiles(files), (side, side, 3))
    for number, path in enumerate(files[:4]):
        np.testing.assert_array_equal(views[number], standard_view(path, side, shorter))
    for number in (4, 5):  # of a panorama only the middle is resized: rounded otherwise
        difference = views[number].astype(int) - standard_view(files[number], side, shorter)
        assert np.abs(difference).max() <= 2
        assert np.abs(difference).mean() < 0.5


def test_a_panorama_is_not_resized_as_a_whole(tmp_path):
    """It would have 224 x 4,480,000 pixels, 3 GB."""
    Image.new("RGB", (60_000, 3), (7, 8, 9)).save(tmp_path / "a.png")
    views = Photographs(StoredFiles([tmp_path / "a.png"]), (224, 224, 3))
    assert (views[0] == [7, 8, 9]).all()


def test_without_zoom_the_shorter_side_is_that_of_the_view(files):
    views = Photographs(StoredFiles(files), (24, 24, 3), zoom=1.0)
    resized = Image.open(files[0]).resize((24, 24), Image.Resampling.BICUBIC, (62.5, 0, 437.5, 375))
    np.testing.assert_array_equal(views[0], resized)


def test_rows_pick_from_the_stored_and_both_survive_the_way_to_a_worker(files):
    stored = StoredFiles(files)
    some = Photographs(stored, (32, 32, 3), rows=[3, 0])
    assert isinstance(some, ImageSource)
    assert isinstance(StoredRows(stored, [3, 0]), StoredImages)
    again = pickle.loads(pickle.dumps(some))
    every = Photographs(stored, (32, 32, 3))
    assert len(every) == len(files)
    assert len(again) == 2
    np.testing.assert_array_equal(again[0], every[3])
    np.testing.assert_array_equal(some.read_all(), np.stack([every[3], every[0]]))
    assert StoredRows(stored, [3, 0])[1] == stored[0]


def test_one_channel_is_grey(files, tmp_path):
    Image.open(files[0]).convert("L").save(tmp_path / "grey.png")
    grey = Photographs(StoredFiles([tmp_path / "grey.png"]), (56, 56, 1))[0]
    colour = Photographs(StoredFiles([tmp_path / "grey.png"]), (56, 56, 3))[0]
    assert grey.shape == (56, 56, 1)
    assert (grey == colour).all()


def test_pixels_may_be_stored_instead_of_files(files):
    class Stored:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return np.asarray(Image.open(files[0]))

        def place(self, index):
            return f"row {index}"

    views = Photographs(Stored(), (56, 56, 3))
    np.testing.assert_array_equal(views[0], Photographs(StoredFiles(files), (56, 56, 3))[0])


def test_all_that_cannot_be_read_is_said_at_once(files, tmp_path):
    (tmp_path / "cut.png").write_bytes(open(files[0], "rb").read()[:2000])  # noqa: SIM115
    (tmp_path / "text.jpg").write_bytes(b"<html>")
    names = [files[1], str(tmp_path / "cut.png"), str(tmp_path / "text.jpg"), "missing.jpg"]
    views = Photographs(StoredFiles(names), (32, 32, 3))
    with pytest.raises(DataError, match=r"cannot read 3 of 4 images: .*cut.png .*No such file"):
        views.read_all()
    with pytest.raises(DataError, match=r"cannot read the image .*text.jpg \(a text such as"):
        views[2]


def test_a_run_repeats_what_it_saw(files):
    """The settings that a run records make the same pixels of files and of Pillow images."""
    settings = json.loads(json.dumps(preprocessing((56, 56, 3), 0.875)))
    assert settings["fit"] == "shorter side to size / 0.875, bicubic; centre crop"
    views = Photographs(StoredFiles(files), (56, 56, 3)).read_all()
    for images in (files, [Image.open(path) for path in files], views):
        np.testing.assert_array_equal(prepare(images, settings), to_float(views))


def test_the_settings_of_small_pictures_are_as_before():
    assert "zoom" not in preprocessing((8, 8, 3))
    assert preprocessing((8, 8, 3))["fit"] == "shorter side to size, bicubic; centre crop"
    with pytest.raises(DataError, match=r"zoom of 0.875 takes square images, got 10 x 6 pixels"):
        preprocessing((6, 10, 3), 0.875)


@pytest.mark.parametrize(
    ("shape", "zoom", "said"),
    [((8, 9, 3), 0.875, "shape"), ((8, 8, 2), 0.875, "shape"), ((8, 8, 3), 0.0, "zoom")],
)
def test_settings_out_of_range_are_refused(shape, zoom, said):
    with pytest.raises(DataError, match=said):
        Photographs(StoredFiles([]), shape, zoom=zoom)
