"""How a run ends: what a user can mend is one line and exit code 2, a bug is a traceback."""

import errno
import itertools
import shutil
import subprocess
import sys

import jax
import pytest

from experiments import simclr
from experiments.images import two_views
from experiments.running import runner
from experiments.running.process import say
from jaxcon.data import sources
from jaxcon.data.order import batch_indices
from jaxcon.data.sources import load
from jaxcon.training import checkpoint
from jaxcon.training.checkpoint import Checkpoints
from jaxcon.training.digests import state_hash
from jaxcon.training.metrics import read_metrics
from jaxcon.training.workdir import open_workdir
from tests.experiments.commands import HERE, SHORT, ended, refused
from tests.experiments.folders import begin, draw, pictures


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Pictures that are read one by one while training, as many that do not fit into memory are."""
    defaults = {**(sources.load.__kwdefaults__ or {}), "memory_limit": 0}
    monkeypatch.setattr(sources.load, "__kwdefaults__", defaults)
    monkeypatch.chdir(tmp_path)
    return pictures(tmp_path / "pets")


@pytest.fixture
def flags(data, tmp_path):
    return [f"--dataset=folder:{data}", f"--workdir={tmp_path / 'run'}", *SHORT, *HERE]


def truncate(path):
    """Half of a picture."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


@pytest.mark.slow
def test_an_image_that_breaks_in_training(flags, data, tmp_path, capsys, monkeypatch):
    """The state reached is saved; with the image repaired, the run ends as one without a break."""
    monkeypatch.setattr(two_views, "conclude", lambda *_, **__: None)
    simclr.main([*flags, f"--workdir={tmp_path / 'whole'}"])
    # An image that the first epoch leaves out: 24 of 28 make three batches.
    used = [set(batch_indices(28, seed=0, batch_size=8, step=step).tolist()) for step in range(12)]
    late = next(i for i in range(28) if not any(i in batch for batch in used[:3]))
    reached = next(step for step in range(12) if late in used[step])
    name = load(f"folder:{data}").train.names[late]
    content = (data / name).read_bytes()
    pretrain = runner.pretrain

    def break_first(*arguments, **settings):
        truncate(data / name)
        return pretrain(*arguments, **settings)

    monkeypatch.setattr(runner, "pretrain", break_first)
    said = ended(simclr.main, flags, capsys)
    monkeypatch.setattr(runner, "pretrain", pretrain)
    assert f"cannot read the image {data / name}" in said
    assert f"the state after step {reached} is saved, and the same command resumes" in said
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == reached
    assert name in ended(simclr.main, flags, capsys)  # it is broken still
    (data / name).write_bytes(content)
    simclr.main(flags)
    assert f"resumed at step {reached} of 12" in capsys.readouterr().out
    ends = [state_hash(checkpoint.load_variables(tmp_path / n)) for n in ("run", "whole")]
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_an_image_that_breaks_before_the_evaluation(flags, data, tmp_path, capsys, monkeypatch):
    """It may be another image that takes its place: the tests of its name are gone either way."""
    name = load(f"folder:{data}").test.names[0]
    concluded = two_views.conclude

    def conclude(*arguments, **settings):
        truncate(data / name)
        concluded(*arguments, **settings)

    monkeypatch.setattr(two_views, "conclude", conclude)
    said = ended(simclr.main, flags, capsys)
    assert f"cannot read the image {data / name}" in said
    assert "the state after step 12 is saved" in said
    draw(data / name, 1000)
    monkeypatch.setattr(two_views, "conclude", lambda *_, **__: say("concluded"))
    simclr.main(flags)
    assert "concluded" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "a/loss.png"),
            "a/loss.png: No space left",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            "run: Disk quota exceeded; the same command",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: Permission denied"),
        (FloatingPointError("try a smaller --learning-rate"), "smaller --learning-rate"),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GiB"),
            "the device is out of memory; choose a smaller",
        ),
        (MemoryError("Unable to allocate 1 TiB"), "the machine is out of memory; choose a smaller"),
    ],
)
def test_what_the_machine_lacks_is_one_line(flags, capsys, monkeypatch, error, said):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(runner, "pretrain", fail)
    assert said in refused(simclr.main, flags, capsys)


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("shapes"), OSError(errno.ENOENT, "x")])
def test_a_bug_keeps_its_traceback(flags, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(runner, "pretrain", fail)
    with pytest.raises(type(error)):
        simclr.main(flags)


@pytest.mark.slow
def test_a_disk_that_fills_up_is_told_with_what_is_kept(flags, tmp_path, capsys, monkeypatch):
    usage, calls = shutil.disk_usage, []

    def fuller(path):
        calls.append(path)
        free = 2**40 if len(calls) < 5 else 2**20  # at the start, and for checkpoints 0 and 5
        return usage(path)._replace(free=free)

    monkeypatch.setattr(shutil, "disk_usage", fuller)
    said = ended(simclr.main, flags, capsys)
    assert (
        "1 MiB free, checkpoint 10 needs 9; the state after step 5 is saved, and the same" in said
    )


def test_the_room_for_the_checkpoints_is_checked_first(flags, tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda p: usage(p)._replace(free=90 * 2**20))
    said = refused(simclr.main, flags, capsys)
    # adamw: parameters and two moments, 4 bytes each, in four checkpoints; and 64 MiB.
    widths = [8 * 8 * 3, 512, 512, 512, 256, 128]
    kernels = sum(a * b for a, b in itertools.pairwise(widths))
    assert f"90 MiB free, a run needs at least {64 + 4 * 3 * 4 * kernels / 2**20:.0f}" in said
    assert not (tmp_path / "run").exists()


def test_images_that_no_memory_holds_are_refused(flags, capsys, monkeypatch):
    """An image of this size takes 12 TB as float32."""
    said = refused(simclr.main, [*flags, "--image-size=1000000"], capsys)
    assert "is out of memory; choose a smaller --batch-size, --image-size" in said


def test_orbax_is_told_from_others_when_the_disk_is_full(tmp_path):
    """The background thread's error, as tensorstore words it."""
    message = "RESOURCE_EXHAUSTED: Failed writing: No space left on device [os_error_code='28']"
    with Checkpoints(tmp_path / "c") as checkpoints:

        def fail():
            raise ValueError(message)

        checkpoints._manager.wait_until_finished = fail
        with pytest.raises(checkpoint.DiskFullError, match="became full while a checkpoint"):
            checkpoints.wait()
        message = "another"
        with pytest.raises(ValueError, match="another"):
            checkpoints.wait()
        del checkpoints._manager.wait_until_finished


def test_a_finished_run_on_a_disk_that_takes_nothing(flags, tmp_path, capsys, monkeypatch):
    begin(simclr.main, flags)
    (tmp_path / "run" / "checkpoints" / "1").mkdir(parents=True)
    (tmp_path / "run" / "results.json").write_text('{"scores": {}}')
    (tmp_path / "run" / "report.html").touch()

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    simclr.main(flags)
    assert "this run is finished" in capsys.readouterr().out
    assert "Read-only file system" in refused(simclr.main, [*flags, "--workdir=new"], capsys)


HOLD = """
import sys, time
from jaxcon.training.workdir import open_workdir
held = open_workdir(sys.argv[1], {})
print(held.resumed, flush=True)
time.sleep(60)
"""


def test_the_second_of_two_runs_in_a_folder_is_refused(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "False\n"
        with pytest.raises(ValueError, match="another process is training in this folder"):
            open_workdir(tmp_path / "run", {})
    finally:
        first.kill()
        first.wait()
    mine = open_workdir(tmp_path / "run", {})  # the lock went with its process
    assert mine.resumed
    assert open_workdir(tmp_path / "run", {}).lock is mine.lock  # and one process has one
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert "another process is training" in done.stderr
    del mine
    monkey = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert monkey.stdout.readline() == "True\n"
    monkey.kill()
    monkey.wait()
