"""People's own files at the command: one line and exit code 2, or one line that says what was found."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from experiments import clip, simclr
from experiments.pairs import captions
from experiments.running import runner
from experiments.running.options import Machine
from experiments.running.run import Run
from experiments.running.workdir import workdir_path
from jaxcon.data.captions import PairDataset, PairSplit
from jaxcon.data.splits import Split
from jaxcon.encoders.tokenizer import Tokenizer
from tests.experiments.commands import refused


def pictures(folder, count, size=(12, 10)):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", size, (number, 80, 160)).save(folder / f"{number}.png")


@pytest.fixture
def pets(tmp_path, monkeypatch):
    """The current folder is an empty one beside `pets`, which has two classes and captions."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("cat", "dog"):
        pictures(tmp_path / "pets" / name, 20)
    rows = [f"cat/{i}.png,{'a very ' * 40}small cat {i}\n" for i in range(20)]
    (tmp_path / "pets" / "captions.csv").write_text("image,caption\n" + "".join(rows))
    return tmp_path / "pets"


@pytest.mark.parametrize("command", [simclr, clip])
@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ("folder:", "folder: names no folder"),
        ("folder:../pets.zip", "there is no folder ../pets.zip"),
        ("../pets", "../pets is a path; did you mean folder:../pets?"),
        ("/data/pets", "/data/pets is a path; did you mean folder:/data/pets?"),
        ("", "unknown dataset ''; expected digits, scenes, folder:PATH"),
        ("folder:.", "there are no "),
        (f"folder:{'x' * 3000}", "cannot be opened"),
    ],
)
def test_what_is_no_folder_of_images(command, dataset, said, pets, capsys):
    error = refused(command.main, [f"--dataset={dataset}"], capsys)
    assert said in error
    assert len(error) < 400
    assert os.listdir() == []  # nothing was begun


def test_too_few_images_and_damaged_ones_are_refused_before_anything_is_written(pets, capsys):
    (pets / "cat" / "3.png").write_bytes(b"")
    flags = [f"--dataset=folder:{pets}", "--workdir=run"]
    said = f"cannot read the image {pets}/cat/3.png (the file is empty)"
    assert said in refused(simclr.main, flags, capsys)
    assert said in refused(clip.main, flags, capsys)
    pictures(pets.parent / "few" / "cat", 2)
    pictures(pets.parent / "few" / "dog", 2)
    flags = ["--dataset=folder:../few", "--workdir=run"]
    assert "../few: 4 images are too few" in refused(simclr.main, flags, capsys)
    assert os.listdir() == []


def test_the_first_line_says_what_was_found(pets, capsys, monkeypatch):
    def train(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "pretrain", train)
    flags = [f"--dataset=folder:{pets}", "--encoder=mlp"]
    with pytest.raises(KeyboardInterrupt):
        simclr.main([*flags, "--workdir=images"])
    assert capsys.readouterr().out.splitlines()[0] == (
        "found 40 images of 2 classes (cat, dog): 28 train, 4 validation, 8 test; read at 10 x 10 "
        "pixels; files of 12 x 10; left out: 1 .csv"
    )
    with pytest.raises(KeyboardInterrupt):
        clip.main([*flags, "--workdir=captions", "--context-length=5"])
    assert capsys.readouterr().out.splitlines()[:2] == [
        "found 20 images with 20 captions: 14 train, 2 validation, 4 test; read at 10 x 10 pixels; "
        "table captions.csv; files of 12 x 10",
        "20 of 20 captions were cut at 5 tokens; a larger --context-length reads more of them",
    ]


def test_damaged_notes_of_a_camera_are_no_matter(pets, capsys, monkeypatch):
    """Pillow warns of them, without the name of the file."""
    notes = b"Exif\0\0II*\0" + b"\xff" * 4
    Image.new("RGB", (12, 10)).save(pets / "cat" / "phone.jpg", exif=notes)
    monkeypatch.setattr(runner, "pretrain", lambda *_, **__: Run({}, {}, False))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        simclr.main([f"--dataset=folder:{pets}", "--encoder=mlp", "--workdir=run"])
    assert "found 41 images" in capsys.readouterr().out
    assert not [warning for warning in caught if "EXIF" in str(warning.message)]


def test_captions_that_are_cut_are_counted():
    texts = ["red", "red green", "red green blue", "red green blue grey"]
    images = Split(np.zeros((1, 8, 8, 3), np.uint8))
    parts = [PairSplit(images, ((text,),)) for text in (texts[2], texts[1], texts[3])]
    dataset = PairDataset("colours", *parts)
    for length, cut in ((1, 3), (2, 2), (3, 1), (4, 0)):
        tokenizer = Tokenizer.train(texts * 3, max_length=length)
        note = captions.cut_note(dataset, tokenizer)
        assert (note or "0 of 3 ").startswith(f"{cut} of 3 ")
    assert captions.cut_note(dataset, captions.make_tokenizer(dataset, 4096)) is None


@pytest.mark.parametrize("flag", ["--context-length=0", "--context-length=-1"])
def test_a_context_of_no_tokens_is_refused(flag, capsys):
    assert f"{flag}: expected a number above 0" in refused(clip.main, [flag], capsys)


@pytest.mark.parametrize(
    "name", ["x" * 255, "ä" * 127, "/".join(["deep"] * 100), "猫" * 80, "caf\udce9" * 80]
)
def test_a_long_path_makes_a_name_that_every_disk_takes(name, tmp_path):
    path = workdir_path(Machine(), "simclr", f"folder:/data/{name}")
    assert len(path.name.encode()) <= 143  # the least of common file systems
    (tmp_path / path.name).mkdir()
    assert path.name.startswith("simclr-folder-data-")
    assert path != workdir_path(Machine(), "simclr", f"folder:/data/{name}x")
