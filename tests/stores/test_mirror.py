"""Runs in an object store: what a kill leaves there is enough, and nothing else counts."""

import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxcon.stores import Mirror, StoreError, mirror, mirror_of, named, reading
from jaxcon.training import _mirrored
from jaxcon.training.checkpoint import (
    Checkpoints,
    CorruptCheckpointError,
    DiskFullError,
    load_newest,
)
from jaxcon.training.digests import state_hash
from jaxcon.training.metrics import MetricsLog, read_metrics
from jaxcon.training.workdir import open_workdir
from tests.training.toy import make_state

URL = "s3://bucket/deep/run"
CONFIG = {"seed": 0}


def state_at(step: int):
    state = make_state().replace(step=jnp.int32(step))
    return state.replace(params=jax.tree.map(lambda x: x + step, state.params))


def train(*, start: int = 0, stop: int, url: str = URL):
    """Four metrics and a checkpoint at each of some steps."""
    workdir = open_workdir(url, CONFIG)
    with (
        MetricsLog(workdir.path, start=4 * max(0, start - 1)) as log,
        Checkpoints(workdir.checkpoints) as checkpoints,
    ):
        for step in range(start, stop + 1):
            for number in range(max(0, 4 * (step - 1)), 4 * step):
                log.write(number, {"loss": float(number)})
            checkpoints.save(step, state_at(step))
    return workdir


def steps(objects) -> list[int]:
    """The checkpoints that are complete there."""
    return sorted(int(n.split("/")[-2]) for n in objects.held if n.endswith("/complete.json"))


def restore(url: str = URL):
    told = []
    workdir = open_workdir(url, CONFIG)
    with Checkpoints(workdir.checkpoints, say=told.append) as checkpoints:
        return checkpoints.restore(make_state()), told


def test_a_run_is_there_and_is_resumed_from_there(objects):
    train(stop=5)
    assert steps(objects) == [3, 4, 5]
    assert not [n for n in objects.held if "/checkpoints/2/" in n]  # nothing of what was swept
    names = {name.removeprefix("bucket/deep/run/").split("/")[0] for name in objects.held}
    assert names == {"config.json", "metrics.jsonl", "events", "checkpoints", ".lease.json"}
    workdir = open_workdir(URL, CONFIG)
    assert workdir.resumed
    assert len(read_metrics(workdir.metrics)) == 20
    with Checkpoints(workdir.checkpoints) as checkpoints:
        step, state = checkpoints.restore(make_state())
        assert not any((workdir.checkpoints / "4").iterdir())  # only what is needed is copied
        checkpoints.save(6, state_at(6))
    assert step == 5
    assert state_hash(state) == state_hash(state_at(5))
    assert steps(objects) == [4, 5, 6]


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_checkpoint_with_its_metrics(objects):
    """What the store held after each single write and removal."""
    train(stop=0)
    begun = len(objects.history)
    train(start=1, stop=5)
    moments = objects.history[begun - 1 :]
    assert len(moments) > 60
    newest = 0
    for held in moments[::3]:
        objects.held = held
        copy = Mirror(URL)
        step, variables = load_newest(copy.folder)
        assert state_hash(variables) == state_hash(dict(state_at(step).variables(average=True)))
        rows = read_metrics(copy.folder / "metrics.jsonl")
        assert [row["step"] for row in rows][: 4 * step] == list(range(4 * step))
        assert step >= newest
        newest = step
        copy.discard()
    assert newest == 5


def test_what_was_half_sent_is_cleared_away(objects):
    train(stop=2)
    objects.held.pop("bucket/deep/run/checkpoints/2/complete.json")
    (found, _), told = restore()
    assert (found, told) == (1, [])
    assert not [name for name in objects.held if "/checkpoints/2/" in name]


def damage(objects, step: int) -> None:
    """The largest file of a checkpoint is another one, of the same size."""
    files = {n: c for n, c in objects.held.items() if f"/checkpoints/{step}/state/" in n}
    name = max(files, key=lambda name: len(files[name]))
    objects.held[name] = bytes(255 - byte for byte in files[name])


def test_a_damaged_checkpoint_counts_no_more_and_stays(objects):
    train(stop=3)
    damage(objects, 3)
    (step, state), told = restore()
    assert step == 2
    assert state_hash(state) == state_hash(state_at(2))
    assert told[0].startswith("checkpoint 3 is not used")
    assert steps(objects) == [1, 2]
    assert [name for name in objects.held if name.endswith("/3/damaged.json")]
    train(start=3, stop=3)
    assert steps(objects) == [1, 2, 3]
    assert restore()[0][0] == 3


@pytest.mark.parametrize("lost", ["a file", "a part of one"])
def test_a_checkpoint_that_is_not_as_it_was_sent_is_not_used(objects, lost):
    train(stop=2)
    name = next(n for n in objects.held if "/checkpoints/2/state/" in n and objects.held[n])
    if lost == "a file":
        del objects.held[name]
    else:
        objects.held[name] = objects.held[name][:-1]
    (step, _), told = restore()
    assert step == 1
    assert "2 is not used: " in told[0]


def test_all_damaged_is_a_refusal_that_names_the_store(objects):
    train(stop=1)
    for step in (0, 1):
        damage(objects, step)
    with pytest.raises(CorruptCheckpointError) as told, reading(URL) as folder:
        load_newest(folder)
    assert str(told.value).startswith(f"{URL}/checkpoints: none of 2 checkpoints is intact")
    assert steps(objects) == [0, 1]


def test_a_network_that_is_down_damages_nothing(objects, monkeypatch):
    train(stop=2)
    before = dict(objects.held)

    def down(*_):
        raise TimeoutError("no answer")

    workdir = open_workdir(URL, CONFIG)
    monkeypatch.setattr(objects, "get", down)
    with (
        Checkpoints(workdir.checkpoints) as checkpoints,
        pytest.raises(StoreError, match=r"cannot be read \(TimeoutError: no answer\)"),
    ):
        checkpoints.restore(make_state())
    assert steps(objects) == [0, 1, 2]
    assert before.keys() == objects.held.keys()


def test_what_cannot_be_sent_ends_the_run_and_the_rest_is_kept(objects):
    workdir = open_workdir(URL, CONFIG)
    with Checkpoints(workdir.checkpoints) as checkpoints:
        checkpoints.save(1, state_at(1))
        checkpoints.wait()
        objects.refused = PermissionError("token expired")
        checkpoints.save(2, state_at(2))
        with pytest.raises(
            StoreError, match=r"run: cannot be written to \(token expired\); the acc"
        ):
            checkpoints.save(3, state_at(3))
        objects.refused = None
    assert steps(objects) == [1]
    assert restore()[0][0] == 1


def test_a_second_process_is_kept_out_and_one_that_was_replaced_sends_nothing(objects):
    workdir = open_workdir(URL, CONFIG)
    with Checkpoints(workdir.checkpoints) as checkpoints:
        checkpoints.save(1, state_at(1))
        checkpoints.wait()
        objects.held["bucket/deep/run/.lease.json"] = b'{"token": "theirs"}'
        checkpoints.save(2, state_at(2))
        with pytest.raises(StoreError, match="another process has taken over"):
            checkpoints.wait()
    assert steps(objects) == [1]


def test_one_that_is_replaced_while_it_sends_finishes_no_checkpoint(objects, monkeypatch):
    run = Mirror(URL)
    (run.folder / "config.json").write_text("{}")
    run.claim()
    for step in (0, 1):
        folder = run.folder / "checkpoints" / str(step)
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(b"w")
        if step == 0:
            run.push()
    put = objects.put

    def replaced(*arguments):
        taken = {"host": "another", "pid": 1, "kernel": "k", "token": "t"}
        objects.held["bucket/deep/run/.lease.json"] = json.dumps(taken).encode()
        put(*arguments)

    monkeypatch.setattr(objects, "put", replaced)
    with pytest.raises(StoreError):
        run.push()
    assert steps(objects) == [0]


def test_another_configuration_is_refused_before_anything_changes(objects):
    train(stop=1)
    before = dict(objects.held)
    with pytest.raises(ValueError, match="seed was 0, is 1") as told:
        open_workdir(URL, {"seed": 1})
    assert named(str(told.value)).startswith(f"{URL}: made with another configuration")
    assert objects.held == before


def test_a_folder_of_something_else_is_refused_and_not_copied(objects, monkeypatch):
    objects.held = {"bucket/deep/run/thesis.tex": b"", "bucket/deep/run/data/0": b""}
    monkeypatch.setattr(objects, "get", pytest.fail)
    with pytest.raises(ValueError, match=r"holds 'data' and no config.json"):
        open_workdir(URL, CONFIG)
    assert len(objects.held) == 2


def test_a_finished_run_needs_no_right_to_write(objects):
    workdir = train(stop=1)
    for file in (workdir.results, workdir.page):
        file.write_text("{}")
    workdir.send()
    objects.refused = PermissionError("read only")
    again = open_workdir(URL, CONFIG)
    assert again.finished
    assert again.path != workdir.path


def test_only_what_changed_is_sent(objects):
    workdir = open_workdir(URL, CONFIG)
    (workdir.path / "figures").mkdir()
    (workdir.path / "figures" / "loss.png").write_bytes(b"1")
    (workdir.path / ".results.json.partial").write_bytes(b"{")
    workdir.send()
    before = len(objects.history)
    workdir.send()
    assert len(objects.history) == before
    (workdir.path / "figures" / "loss.png").write_bytes(b"12")
    workdir.send()
    changed = objects.history[-1].items() - objects.history[before - 1].items()
    assert dict(changed) == {"bucket/deep/run/figures/loss.png": b"12"}
    assert not [name for name in objects.held if "partial" in name]


def test_a_full_disk_is_that_of_the_temporary_folder(objects, monkeypatch):
    import shutil

    workdir = open_workdir(URL, CONFIG)
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=3))
    with Checkpoints(workdir.checkpoints) as checkpoints, pytest.raises(DiskFullError) as full:
        checkpoints.save(1, state_at(1))
    assert full.value.filename == tempfile.gettempdir()
    with pytest.raises(ValueError, match=f"^{tempfile.gettempdir()}: 0 MiB free, .* set TMPDIR to"):
        open_workdir(URL, CONFIG)


def test_a_copy_to_read_lasts_as_long_as_it_is_read(objects):
    train(stop=1)
    with reading(URL) as folder:
        assert json.loads((folder / "config.json").read_text()) == CONFIG
        assert folder.name == "run"
        assert mirror_of(folder / "checkpoints").url == URL
        assert named(f"{folder}/report.html") == f"{URL}/report.html"
    assert not folder.exists()
    assert mirror_of(folder) is None
    with reading("runs/a") as folder:
        assert folder == Path("runs/a")


def test_copies_of_killed_processes_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(mirror, "_OLD", -1.0)
    left = tmp_path / "jaxcon-store-left"
    left.mkdir()
    (left / ".alive").touch()
    mine, _alive = mirror._new_spool()
    assert not left.exists()
    mirror._new_spool()
    assert Path(mine.name).exists()  # its owner is alive


def test_another_process_sees_what_is_there_once_the_first_has_the_folder(objects, monkeypatch):
    train(stop=2)
    early = Mirror(URL)
    train(start=3, stop=6)  # by a run that the first process waited for
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(_mirrored, "all_say", lambda word: [word, word])
    with Checkpoints(early.folder / "checkpoints") as checkpoints:
        assert checkpoints.restore(make_state())[0] == 6
        checkpoints.save(7, state_at(7))  # the first process does
    assert steps(objects) == [4, 5, 6]


def test_processes_that_read_different_checkpoints_do_not_go_on(objects, monkeypatch):
    train(stop=2)
    copy = Mirror(URL)
    monkeypatch.setattr(_mirrored, "all_say", lambda word: [word, "1"] if word else [word])
    with (
        Checkpoints(copy.folder / "checkpoints") as checkpoints,
        pytest.raises(ValueError, match="found different checkpoints intact, those of steps 2, 1"),
    ):
        checkpoints.restore(make_state())


def test_a_run_that_goes_on_may_sweep_away_what_is_being_read(objects, monkeypatch):
    train(stop=3)
    held, fetch, calls = dict(objects.held), Mirror.fetch, []

    def late(self, step):
        calls.append(step)
        if len(calls) == 1:
            train(start=4, stop=6)
            held.update(objects.held)
        fetch(self, step)

    monkeypatch.setattr(Mirror, "fetch", late)
    step, variables = load_newest(URL)
    assert (calls[0], step) == (3, 6)
    assert state_hash(variables) == state_hash(dict(state_at(6).variables(average=True)))
