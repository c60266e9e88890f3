"""The folder of a run: whose it is, and that nothing in it changes before that is clear."""

import json
import os
import shutil
from collections import namedtuple

import pytest

from jaxcon.training.workdir import (
    Workdir,
    check_writable,
    differences,
    open_workdir,
    read_config,
)


def test_a_folder_is_new_then_resumed(tmp_path):
    config = {"seed": 0, "temperature": 0.5}
    assert not open_workdir(tmp_path / "a" / "run", config).resumed
    assert open_workdir(tmp_path / "a" / "run", config).resumed
    assert json.loads((tmp_path / "a" / "run" / "config.json").read_text()) == config


def test_another_configuration_is_refused_with_its_fields(tmp_path):
    open_workdir(tmp_path, {"seed": 0, "temperature": 0.5, "epochs": 3})
    with pytest.raises(
        ValueError, match=r"epochs was 3, is 4, seed was 0, is 1; use the former values"
    ):
        open_workdir(tmp_path, {"seed": 1, "temperature": 0.5, "epochs": 4})


def test_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="expected a folder, found a file"):
            check_writable(path)


def test_a_folder_that_cannot_be_written_is_refused():
    with pytest.raises(ValueError, match="cannot be written to"):
        check_writable("/proc/jaxcon")


def test_trying_to_write_leaves_nothing(tmp_path):
    check_writable(tmp_path / "run" / "deep")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_refused(tmp_path, monkeypatch):
    free = namedtuple("usage", "free")(100 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    check_writable(tmp_path, needed=36 * 2**20)
    with pytest.raises(ValueError, match="100 MiB free, a run needs at least 101"):
        check_writable(tmp_path, needed=37 * 2**20)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"holds 'thesis.tex' and no config.json"):
        open_workdir(tmp_path, {})


def test_training_without_a_checkpoint_is_not_begun_again(tmp_path):
    open_workdir(tmp_path, {"seed": 0})
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')
    with pytest.raises(ValueError, match="training began here, but there is no checkpoint"):
        open_workdir(tmp_path, {"seed": 0})


def test_a_config_that_is_not_json_is_refused(tmp_path):
    open_workdir(tmp_path, {"seed": 0})
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not readable as JSON"):
        open_workdir(tmp_path, {"seed": 0})


def test_differences_are_named_by_their_path():
    before = {"a": 1, "b": {"c": 2, "d": [1, 2]}, "written_by": "jaxcon 0"}
    assert differences(before, {**before, "written_by": "jaxcon 1", "e": None}) == {}
    now = {"a": 1, "b": {"c": 3, "d": [1, 2, 3]}, "f": 0}
    assert list(differences(before, now).values()) == [
        "b.c was 2, is 3",
        "b.d was [1, 2], is [1, 2, 3]",
        "f was None, is 0",
    ]
    said = differences({"a": "x" * 1000}, {"a": "y"})["a"]
    assert len(said) < 120


def test_files_of_a_configuration_are_written_with_it_and_mended(tmp_path):
    files = {"tokenizer.json": b"{}"}
    open_workdir(tmp_path / "run", {"sha": 1}, files=files)
    (tmp_path / "run" / "tokenizer.json").write_bytes(b"{")
    open_workdir(tmp_path / "run", {"sha": 1}, files=files)
    assert (tmp_path / "run" / "tokenizer.json").read_bytes() == b"{}"
    with pytest.raises(ValueError, match="sha was 1, is 2"):
        open_workdir(tmp_path / "run", {"sha": 2}, files={"tokenizer.json": b"[]"})
    assert (tmp_path / "run" / "tokenizer.json").read_bytes() == b"{}"


def test_what_a_killed_start_left_is_no_obstacle(tmp_path):
    (tmp_path / ".config.json.17.partial").write_text("{")
    assert not open_workdir(tmp_path, {"seed": 0}).resumed
    assert read_config(tmp_path) == {"seed": 0}


def test_the_faster_of_two_starts_decides(tmp_path, monkeypatch):
    """Both found an empty folder; the slower one finds the other's configuration when it writes."""
    link = os.link

    def slower(source, target):
        target.write_text('{"seed": 1}')
        link(source, target)

    monkeypatch.setattr(os, "link", slower)
    with pytest.raises(ValueError, match="seed was 1, is 0"):
        open_workdir(tmp_path / "run", {"seed": 0})
    assert read_config(tmp_path / "run") == {"seed": 1}
    assert os.listdir(tmp_path / "run") == ["config.json"]


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    open_workdir(tmp_path / "run", {"seed": 0})
    assert os.listdir(tmp_path / "run") == ["config.json"]


@pytest.mark.parametrize("path", ["x" * 300, "/dev/null/run"])
def test_a_path_that_cannot_be_one_is_a_sentence(path):
    for refuse in (check_writable, read_config, lambda p: open_workdir(p, {})):
        if refuse is read_config and path.startswith("/dev"):
            continue  # there is no run, and that is the answer
        with pytest.raises(ValueError) as error:
            refuse(path)
        assert len(str(error.value)) < 300


def test_a_dangling_link_is_a_sentence(tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "none" / "run")
    with pytest.raises(ValueError, match="cannot be written to"):
        open_workdir(tmp_path / "run", {})


def test_a_finished_run_is_left_alone(tmp_path):
    open_workdir(tmp_path, {"seed": 0})
    (tmp_path / "results.json").write_text("{}")
    (tmp_path / "report.html").write_text("")
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    workdir = open_workdir(tmp_path, {"seed": 0}, needed=2**60)
    assert workdir.finished
    assert workdir.lock is None
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_run_whose_page_is_missing_has_something_to_do(tmp_path):
    open_workdir(tmp_path, {"seed": 0})
    (tmp_path / "results.json").write_text("{}")
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    with pytest.raises(ValueError, match="a run needs at least"):
        open_workdir(tmp_path, {"seed": 0}, needed=2**60)
    assert open_workdir(tmp_path, {"seed": 0}).lock is not None


@pytest.mark.parametrize("name", ["run [1]", "run?", "*", "a\\b", "caf\udce9"])
def test_a_path_where_no_checkpoint_is_found_again_is_refused(tmp_path, name):
    """Orbax writes there, and looks elsewhere."""
    for path in (tmp_path / name, tmp_path / name / "below"):
        with pytest.raises(ValueError, match="checkpoints cannot be kept where a path has "):
            open_workdir(path, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["{}", '{"scores": 3}', '{"scores": {"kNN": 0.5}}', "[]", "{"])
def test_results_without_scores_are_told(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError, match=r"results\.json: .*remove it, and the same command eval"):
        Workdir(tmp_path, resumed=True).read_results()
