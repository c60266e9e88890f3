"""Several processes: whether they see the same folder, as far as one of them can say."""

import os
import re
import socket
import subprocess
import sys

import jax
import pytest

from jaxcon.training import same_folder
from jaxcon.training.same_folder import check_same_folder


def play(monkeypatch, *, me: int, others):
    """Makes this process one of two; `others(turn, own)` is what the other says."""
    turns = []

    def all_say(word):
        turns.append(word)
        said = [word, others(len(turns) - 1, word)]
        return said if me == 0 else said[::-1]

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: me)
    monkeypatch.setattr(same_folder, "all_say", all_say)
    monkeypatch.setattr(same_folder, "_PATIENCE", 0.2)
    return turns


def test_the_first_process_shows_a_file_and_takes_it_away(tmp_path, monkeypatch):
    seen = []

    def other(turn, own):
        if turn == 0:
            return own
        depth, _, name = own.partition(" ")
        if turn == 1:
            folder = [tmp_path / "runs" / "new", *(tmp_path / "runs" / "new").parents][int(depth)]
            seen.append((folder / name).exists())
            return "0 "
        return "False True"

    play(monkeypatch, me=0, others=other)
    check_same_folder(tmp_path / "runs" / "new", say=pytest.fail)
    assert seen == [True]
    assert not list(tmp_path.iterdir())


def test_another_process_looks_where_the_first_one_wrote(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "shown").touch()
    answers = ["a", "2 shown", "False True"]
    turns = play(monkeypatch, me=1, others=lambda turn, _: answers[turn])
    told = []
    check_same_folder(
        tmp_path / "runs" / "new", say=told.append
    )  # here the folder above is there too
    assert turns[2] == "False True"
    assert re.match(
        r"2 processes on 2 hosts: each needs .*/runs/new, on a disk that they share", told[0]
    )


def test_who_does_not_see_it_is_named_in_every_process(tmp_path, monkeypatch):
    said = "process 1 on b does not see the folder that process 0 on"
    first = ["b", "0 ", "False False"]
    play(monkeypatch, me=0, others=lambda turn, _: first[turn])
    with pytest.raises(ValueError, match=said):
        check_same_folder(tmp_path / "run", say=len)
    monkeypatch.undo()
    monkeypatch.setattr(socket, "gethostname", lambda: "b")
    second = ["a", "1 shown", "False True"]
    turns = play(monkeypatch, me=1, others=lambda turn, _: second[turn])
    with pytest.raises(
        ValueError, match=f"--workdir={tmp_path}/run: {said} a writes to; choose one"
    ):
        check_same_folder(tmp_path / "run", say=len)
    assert turns[2] == "False False"


def test_a_finished_run_on_one_of_two_disks_is_seen(tmp_path, monkeypatch):
    for name in ("results.json", "report.html"):
        (tmp_path / name).touch()
    answers = ["a", "0 ", "False True"]
    play(monkeypatch, me=1, others=lambda turn, _: answers[turn])
    with pytest.raises(ValueError, match="does not see the folder"):
        check_same_folder(tmp_path, say=len)


def test_a_finished_run_that_is_kept_safe_needs_no_file(tmp_path, monkeypatch):
    for name in ("results.json", "report.html"):
        (tmp_path / name).touch()
    answers = ["a", "0 ", "True True"]
    turns = play(monkeypatch, me=1, others=lambda turn, _: answers[turn])
    check_same_folder(tmp_path, say=len)
    assert turns[2] == "True True"


_PROCESS = """
import sys
from pathlib import Path
from jaxcon.training.devices import select_accelerator
from jaxcon.training.same_folder import check_same_folder
select_accelerator("cpu")
check_same_folder(Path(sys.argv[1]), say=print)
"""


@pytest.mark.slow
def test_two_processes_with_a_folder_each(tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    kept = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    for places, seen in ((["a", "a"], True), (["a", "b"], False)):
        for place in places:
            (tmp_path / place).mkdir(exist_ok=True)
        job = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", _PROCESS, str(tmp_path / place / "run")],
                env=kept | job | {"JAX_PROCESS_ID": str(rank)},
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank, place in enumerate(places)
        ]
        errors = [process.communicate(timeout=120)[1] for process in processes]
        assert [("does not see the folder" in error) for error in errors] == [not seen] * 2
        assert [process.returncode == 0 for process in processes] == [seen] * 2
