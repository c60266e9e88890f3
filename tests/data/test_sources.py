import re
import shutil

import pytest

from jaxcon.data.captions import load_pairs
from jaxcon.data.sources import DataError, load


def test_unknown_names_get_the_nearest_ones(data_dir):
    with pytest.raises(DataError, match="unknown dataset 'cifar1O'; did you mean cifar10") as error:
        load("cifar1O", data_dir=data_dir)
    assert len(str(error.value)) < 200


def test_names_like_no_other_get_no_hint(data_dir):
    with pytest.raises(
        DataError, match=r"unknown dataset 'zzzzqqqq' \(digits, scenes, folder:PATH, tar:PATH, "
    ):
        load("zzzzqqqq", data_dir=data_dir)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("/data/pets", "folder:/data/pets"),
        ("./pets", "folder:./pets"),
        ("../pets", "folder:../pets"),
        ("~/pets", "folder:~/pets"),
        ("C:\\pets", "folder:C:\\pets"),
        ("pets", "folder:pets"),
        ("Folder:pets", "folder:pets"),
        ("file:///data/pets", "folder:///data/pets"),
        ("dir:pets", "folder:pets"),
        ("folder=pets", "folder:pets"),
        ("folders:pets", "folder:pets"),
        ("imagefolder:pets", "folder:pets"),
        ("FOLDER :pets", "folder:pets"),
        ("pets/", "folder:pets/"),
        ("/data/pets-{000..099}.tar", "tar:/data/pets-{000..099}.tar"),
        ("s3://bucket/pets.tar", "tar:s3://bucket/pets.tar"),
        ("./pets.parquet", "parquet:./pets.parquet"),
        ("webdataset:pets.tar", "tar:pets.tar"),
        ("TAR:pets.tar", "tar:pets.tar"),
        ("parquet=pets", "parquet:pets"),
    ],
)
def test_a_path_without_folder_in_front(name, meant, data_dir, tmp_path, monkeypatch):
    (tmp_path / "pets").mkdir()
    monkeypatch.chdir(tmp_path)
    for loader in (load, load_pairs):
        with pytest.raises(DataError, match=re.escape(f"did you mean {meant}?")) as caught:
            loader(name, data_dir=data_dir)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ["", " ", "cats and dogs", "a\nb", "x" * 1000, "é;è", "123", "digits/", "a=b"]
)
def test_names_that_no_dataset_has_are_refused_in_a_short_line(name, data_dir):
    with pytest.raises(DataError, match="unknown dataset") as caught:
        load(name, data_dir=data_dir)
    assert len(str(caught.value)) < 250
    assert str(caught.value).isprintable()


def test_datasets_without_images_are_refused_before_any_download(data_dir):
    with pytest.raises(DataError, match="imdb_reviews has no images: its features are"):
        load("imdb_reviews", data_dir=data_dir)


def test_a_data_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write to the data folder .*/file"):
        load("digits", data_dir=tmp_path / "file")


def test_data_prepared_in_another_format_is_refused(digits, data_dir, tmp_path):
    folder = shutil.copytree(data_dir / "jaxcon_digits", tmp_path / "jaxcon_digits") / "1.0.0"
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    for file in folder.glob("*.array_record*"):
        file.rename(folder / file.name.replace("array_record", "tfrecord"))
    with pytest.raises(DataError, match="in a format that cannot be read by position"):
        load("digits", data_dir=tmp_path)


def test_a_test_on_what_was_learned_is_refused(tmp_path):
    with pytest.raises(DataError, match="is the dataset itself"):
        load(f"folder:{tmp_path}", validation_dataset=f"folder:{tmp_path}")
