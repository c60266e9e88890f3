"""Which images a folder has: each real file once, nothing hidden, and what was left out is said."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from jaxcon.data.readers.walk import find_images


def put(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2)).save(path, "PNG")


@contextlib.contextmanager
def an_ordinary_user():
    """Root may enter everything."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def public():
    folder = Path(tempfile.mkdtemp(prefix="jaxcon-walk-"))
    folder.chmod(0o755)
    yield folder
    for below in folder.iterdir():
        below.chmod(0o755)
    shutil.rmtree(folder)


def test_images_are_found_by_name_in_an_order_of_their_own(tmp_path):
    names = ["b/2.PNG", "a/1.jpg", "a/b/3.jfif", "c.avif"]
    put(tmp_path, *names)
    found = find_images(tmp_path)
    assert found.images == sorted(names)
    assert found.folders == ["", "a", "a/b", "b"]
    assert found.left_out == []


@pytest.mark.parametrize(
    "name",
    [
        ".ipynb_checkpoints",
        ".Trash-1000",
        ".git",
        ".venv",
        "@eaDir",
        "#recycle",
        "__MACOSX",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
    ],
)
def test_hidden_and_system_folders_are_left_out_and_named(name, tmp_path):
    put(tmp_path, "cat/1.png", f"{name}/1.png", f"cat/{name}/deep/2.png")
    found = find_images(tmp_path)
    assert found.images == ["cat/1.png"]
    assert found.left_out == [
        f"2 hidden or system folders ({', '.join(sorted([name, f'cat/{name}']))})"
    ]


def test_hidden_files_are_left_out_and_what_systems_put_there_is_not_told(tmp_path):
    put(tmp_path, "1.png", "._1.png", ".hidden.png")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", ".gitignore"):
        (tmp_path / name).write_text("")
    found = find_images(tmp_path)
    assert found.images == ["1.png"]
    assert found.left_out == ["1 hidden image"]


def test_a_folder_called_trash_is_a_class_of_waste(tmp_path):
    put(tmp_path, "trash/1.png", "paper/1.png")
    assert find_images(tmp_path).images == ["paper/1.png", "trash/1.png"]


@pytest.mark.parametrize("target", ["..", ".", "../../..", "../cat"])
def test_a_loop_of_links_adds_nothing(target, tmp_path):
    root = tmp_path / "beside" / "root"
    put(root, *(f"cat/{i}.png" for i in range(10)))
    put(tmp_path, "other/1.png")  # above the root: not asked for
    (root / "cat" / "loop").symlink_to(target)
    assert find_images(root).images == [f"cat/{i}.png" for i in range(10)]


def test_a_link_leads_elsewhere_once_and_never_displaces_what_is_real(tmp_path):
    root = tmp_path / "root"
    put(root, "cat/1.png")
    put(tmp_path, "far/2.png", "far/deep/3.png")
    (root / "a").symlink_to(root / "cat")
    (root / "b").symlink_to(tmp_path / "far")
    (root / "c").symlink_to(tmp_path / "far" / "deep")
    (root / "4.png").symlink_to(root / "cat" / "1.png")
    os.link(root / "cat" / "1.png", root / "cat" / "5.png")
    found = find_images(root)
    assert found.images == ["b/2.png", "b/deep/3.png", "cat/1.png"]
    assert found.left_out == ["2 links to images already found"]


def test_a_folder_of_links_to_elsewhere_is_what_it_seems(tmp_path):
    put(tmp_path, *(f"blobs/{i}" for i in range(4)))
    for i in range(4):
        link = tmp_path / "root" / "ab"[i % 2] / f"{i}.png"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(tmp_path / "blobs" / str(i))
    assert find_images(tmp_path / "root").images == ["a/0.png", "a/2.png", "b/1.png", "b/3.png"]


def test_the_same_number_on_two_disks_is_no_link(tmp_path, monkeypatch):
    """Network disks exist that number files alike; without links they are believed to differ."""
    put(tmp_path, "1.png", "2.png")
    import jaxcon.data.readers.walk as walk

    monkeypatch.setattr(walk._Walk, "_is_new", lambda self, state: not self.images)
    assert find_images(tmp_path).images == ["1.png", "2.png"]


def test_broken_links_pipes_and_a_link_to_itself(tmp_path):
    put(tmp_path, "1.png")
    (tmp_path / "2.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    os.mkfifo(tmp_path / "3.png")
    found = find_images(tmp_path)
    assert found.images == ["1.png"]
    assert found.left_out == ["2 broken links", "1 pipe or device"]


@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_a_folder_that_may_not_be_entered_is_named(mode, public):
    put(public, "cat/1.png", "dog/1.png")
    (public / "dog").chmod(mode)
    with an_ordinary_user():
        found = find_images(public)
    assert found.images == ["cat/1.png"]
    assert found.left_out == ["1 folder that cannot be read (dog: Permission denied)"]


def test_a_root_that_may_not_be_entered_is_named(public):
    (public / "pets").mkdir(mode=0o000)
    with an_ordinary_user():
        found = find_images(public / "pets")
    assert found.images == []
    assert found.left_out == [f"1 folder that cannot be read ({public}/pets: Permission denied)"]


def test_the_folders_of_runs_are_left_out(tmp_path):
    put(tmp_path, "cat/1.png", "runs/simclr/figures/a.png", "mine/b.png")
    (tmp_path / "runs" / "simclr" / "config.json").write_text("{}")
    (tmp_path / "runs" / "simclr" / "metrics.jsonl").write_text("")
    (tmp_path / "mine" / "config.json").write_text("{}")  # not of a run
    found = find_images(tmp_path)
    assert found.images == ["cat/1.png", "mine/b.png"]
    assert found.folders == ["", "cat", "mine"]
    assert found.left_out == ["1 folder of runs (runs/simclr)", "1 .json"]


def test_other_files_are_counted_and_plugins_proposed(tmp_path):
    put(tmp_path, "1.png")
    for name in ("a.txt", "b.TXT", "c.heic", "d.HEIC", "e.jxl", "f.cr2", "README", "g.zip"):
        (tmp_path / name).write_text("")
    assert find_images(tmp_path).left_out == [
        "1 .cr2 (export it as JPEG or TIFF)",
        "2 .heic (pip install pillow-heif, which reads it)",
        "1 .jxl (pip install pillow-jxl-plugin, which reads it)",
        "1 .zip (unpack it)",
        "2 .txt, 1 without an ending",
    ]


def test_names_that_are_not_utf_8(tmp_path):
    put(tmp_path, "1.png")
    name = os.fsdecode(b"caf\xe9.png")
    shutil.copy(tmp_path / "1.png", tmp_path / name)
    assert find_images(tmp_path).images == ["1.png", name]
