"""Crops of photographs in batches: the same for any number of readers, devices and from any step."""

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from PIL import Image

from benchmarks.photographs import jpeg
from jaxcon.data.batching import batches
from jaxcon.data.crops import Crops
from jaxcon.data.decode import crop_views
from jaxcon.data.order import Stream, batch_indices
from jaxcon.data.pairs import CaptionTokens, pair_batches
from jaxcon.data.photographs import Photographs
from jaxcon.data.reading import Bad, Read, Rows, default_workers
from jaxcon.data.skipped import Skipped, SkippedLog, read_skipped
from jaxcon.data.splits import DataError, Split
from jaxcon.data.stored import StoredFiles

SIDE, BATCH, COUNT = 24, 20, 50
CROPS = Crops(SIDE)
SETTINGS = {"seed": 4, "batch_size": BATCH, "crops": CROPS}


def split_of(paths, channels=3):
    stored = StoredFiles(paths)
    return Split(Photographs(stored, (SIDE, SIDE, channels)), originals=stored)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(COUNT):
        content = jpeg(60 + 7 * (number % 5), 50 + 11 * (number % 3), number)
        (folder / f"{number:02}.jpg").write_bytes(content)
    return [str(path) for path in sorted(folder.iterdir())]


@pytest.fixture
def damaged(paths, tmp_path):
    """The same pictures, but of two of them only the first half."""
    files = []
    for number, path in enumerate(paths):
        content = Path(path).read_bytes()
        files.append(tmp_path / f"{number:02}.jpg")
        files[-1].write_bytes(content[: len(content) // 2] if number in (3, 30) else content)
    return [str(path) for path in files]


def taken(split, steps, start=0, **settings):
    stream = batches(split, **{**SETTINGS, **settings}, start_step=start, num_steps=steps)
    return [jax.device_get(batch) for batch in stream]


def equal(some, others):
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])


def by_hand(paths, step, row):
    """The views of one row, from the rule alone."""
    example = batch_indices(len(paths), seed=4, batch_size=BATCH, step=step)[row]
    return crop_views(
        Path(paths[example]).read_bytes(),
        lambda size: [CROPS.box(size, seed=4, step=step, row=row, view=v) for v in range(2)],
        side=SIDE,
    )


def test_a_batch_holds_the_crops_of_its_rows(paths):
    for step, batch in enumerate(taken(split_of(paths), 3)):
        assert batch["image"].shape == (BATCH, 2, SIDE, SIDE, 3)
        assert batch["image"].dtype == np.uint8
        assert batch["index"].tolist() == list(range(step * BATCH, (step + 1) * BATCH))
        for row in (0, 7, BATCH - 1):
            np.testing.assert_array_equal(batch["image"][row], by_hand(paths, step, row))


def test_any_step_can_be_the_first(paths):
    equal(taken(split_of(paths), 2, start=3), taken(split_of(paths), 5)[3:])


@pytest.mark.parametrize("devices", [1, 4])
def test_devices_do_not_change_a_batch(paths, devices):
    mesh = Mesh(np.array(jax.devices()[:devices]), ("batch",))
    sharding = NamedSharding(mesh, PartitionSpec("batch"))
    stream = batches(split_of(paths), **SETTINGS, num_steps=2, sharding=sharding)
    spread = list(stream)
    assert all(batch["image"].sharding == sharding for batch in spread)
    equal([jax.device_get(batch) for batch in spread], taken(split_of(paths), 2))


def test_a_host_reads_its_own_rows_only_and_crops_them_as_one_host_would(paths):
    """Rows 10 to 14 of 20, as if those before and after were on other hosts."""
    stream = Stream(COUNT, 4, BATCH, range(2))
    rows = Rows(StoredFiles(paths), stream, range(10, 15), CROPS)
    part = rows[rows.per_step]  # of step 1
    np.testing.assert_array_equal(part.image, taken(split_of(paths), 2)[1]["image"][10:15])


@pytest.mark.parametrize(
    "num_workers",
    [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)],
)
def test_workers_do_not_change_a_batch(damaged, num_workers):
    settings = {"start": 2, "bad_images": "skip"}
    bad = {0: [], num_workers: []}
    alone = taken(split_of(damaged), 3, **settings, on_bad=bad[0].append)
    spread = taken(
        split_of(damaged), 3, **settings, on_bad=bad[num_workers].append, num_workers=num_workers
    )
    equal(spread, alone)
    assert bad[0] == bad[num_workers]
    assert {one.example for one in bad[0]} == {3, 30}


def test_grey_stays_grey(paths):
    (grey,), (colour,) = taken(split_of(paths, 1), 1), taken(split_of(paths), 1)
    assert grey["image"].shape == (BATCH, 2, SIDE, SIDE, 1)
    difference = grey["image"][..., 0] - colour["image"] @ [0.299, 0.587, 0.114]
    assert np.abs(difference).max() < 1


def test_a_bad_picture_is_named(damaged):
    with pytest.raises(DataError, match=r"cannot read the image .*/(03|30)\.jpg \(.*truncated"):
        taken(split_of(damaged), 5)


def test_another_picture_stands_in_for_a_bad_one(paths, damaged):
    """Row by row: those of the other pictures are as they were."""
    bad = []
    skipped = taken(split_of(damaged), 5, bad_images="skip", on_bad=bad.append)
    equal(taken(split_of(damaged), 5, bad_images="skip"), skipped)
    assert sorted(one.example for one in bad) == [3, 30]
    assert all("truncated" in one.reason for one in bad)
    assert all(one.place == damaged[one.example] for one in bad)
    for step, (one, whole) in enumerate(zip(skipped, taken(split_of(paths), 5), strict=True)):
        examples = batch_indices(COUNT, seed=4, batch_size=BATCH, step=step)
        for row, example in enumerate(examples.tolist()):
            same = np.array_equal(one["image"][row], whole["image"][row])
            assert same == (example not in (3, 30))


def test_images_without_crops_are_skipped_too(damaged):
    split = Split(Photographs(StoredFiles(damaged), (SIDE, SIDE, 3)))
    bad = []
    stream = batches(
        split, seed=4, batch_size=50, num_steps=1, bad_images="skip", on_bad=bad.append
    )
    assert next(stream)["image"].shape == (50, SIDE, SIDE, 3)
    assert sorted(one.example for one in bad) == [3, 30]


def test_a_picture_that_stands_in_brings_its_caption(damaged):
    """Every picture has one colour, and its caption is that colour."""
    for number, path in enumerate(damaged):
        if number not in (3, 30):
            Image.new("RGB", (30, 30), (5 * number,) * 3).save(path, "PNG")
    stream = pair_batches(
        split_of(damaged),
        CaptionTokens(5 * np.arange(COUNT)[:, None], np.ones(COUNT, int)),
        seed=4,
        batch_size=50,
        crops=Crops(SIDE, views=1, area=(0.9, 1.0), flip=False),
        bad_images="skip",
    )
    for batch in itertools.islice(stream, 3):
        assert batch["image"].shape == (50, 1, SIDE, SIDE, 3)
        np.testing.assert_array_equal(batch["tokens"][:, 0], batch["image"][:, 0, 0, 0, 0])
        assert not {15, 150} & set(np.asarray(batch["tokens"])[:, 0].tolist())


def test_a_disk_that_is_gone_is_said(tmp_path):
    paths = [str(tmp_path / f"{number}.jpg") for number in range(30)]
    with pytest.raises(DataError, match=r"jpg \(No such file.*nor 10 others .* still there\?"):
        taken(split_of(paths), 1, bad_images="skip")


def test_more_than_a_hundredth_is_an_error():
    def read(bad, rows=100):
        return Read(np.zeros(0), np.zeros(rows), tuple(Bad(k, f"{k}.jpg", "cut") for k in bad))

    heard = []
    skipped = Skipped(2000, heard.append)
    for _ in range(3):
        skipped.add(read(range(10)))  # ten at most, over and over: of a small folder
    assert [bad.example for bad in heard] == list(range(10))
    with pytest.raises(DataError, match=r"cannot read 11 of 400 images seen, more than 1%: 0\.jpg"):
        skipped.add(read([77]))
    many = Skipped(5000)
    for first in range(0, 5000, 100):
        many.add(read([first]))  # 50 of 5,000
    with pytest.raises(DataError, match="cannot read 51 of 5,000 images"):
        many.add(read([1]))


def test_skipped_pictures_are_listed_once_however_often_a_run_is_resumed(tmp_path):
    for process in (0, 0, 1):
        log = SkippedLog(tmp_path, process)
        for place in ("a.jpg", "b\udce9.jpg"):
            log(Bad(1, place, "cut"))
    lines = (tmp_path / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["place"] for line in lines] == ["a.jpg", "b\udce9.jpg"]
    assert (tmp_path / "skipped-1.jsonl").exists()
    with (tmp_path / "skipped.jsonl").open("a") as file:
        file.write('{"example": 2, "pl')  # killed as it wrote
    assert [bad.place for bad in read_skipped(tmp_path)] == ["a.jpg", "b\udce9.jpg"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_workers": -1}, "num_workers must not be negative, got -1"),
        ({"bad_images": "ignore"}, "bad_images: expected 'error' or 'skip', got 'ignore'"),
    ],
)
def test_settings_are_refused_at_the_call(paths, settings, said):
    with pytest.raises(DataError, match=said):
        batches(split_of(paths), **SETTINGS, **settings)


def test_one_core_is_left_to_the_steps(monkeypatch):
    for cores, workers in ((1, 0), (2, 1), (8, 7), (200, 32)):
        monkeypatch.setattr(
            os, "sched_getaffinity", lambda _, n=cores: set(range(n)), raising=False
        )
        assert default_workers() == workers


HOST = """
import sys
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tests.data.test_reading import SETTINGS, batches, split_of

port, rank, *paths = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", 2, int(rank))
sharding = NamedSharding(Mesh(np.array(jax.devices()), ("batch",)), PartitionSpec("batch"))
bad = []
stream = batches(
    split_of(paths), **SETTINGS, num_steps=3, sharding=sharding, bad_images="skip", on_bad=bad.append
)
for batch in stream:
    for shard in sorted(batch["image"].addressable_shards, key=lambda shard: shard.index[0].start):
        print(shard.index[0].start, int(np.asarray(shard.data).astype(np.int64).sum()), flush=True)
print("bad", *[one.example for one in bad], flush=True)
"""


@pytest.mark.slow
def test_two_processes_read_the_batches_of_one(damaged, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", HOST, str(port), str(rank), *damaged],
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )
        for rank in (0, 1)
    ]
    lines = [host.communicate(timeout=300)[0].splitlines() for host in hosts]
    bad = []
    whole = taken(split_of(damaged), 3, bad_images="skip", on_bad=bad.append)
    for rank, said in enumerate(lines):
        rows = [range(first, first + 5) for first in (10 * rank, 10 * rank + 5)]
        sums = [
            (r.start, int(batch["image"][r.start : r.stop].sum())) for batch in whole for r in rows
        ]
        assert [tuple(map(int, line.split())) for line in said[:-1]] == sums
    assert sorted(number for said in lines for number in said[-1].split()[1:]) == sorted(
        str(one.example) for one in bad
    )


PROGRAM = """
import sys
from tests.data.test_reading import SETTINGS, batches, split_of
if __name__ == "__main__":
    stream = batches(split_of(sys.argv[1:]), **SETTINGS, num_workers=1)
    next(stream)
    print("begun", flush=True)
    sys.stdin.read()
    for _ in range(20):
        next(stream)
    print("went on", flush=True)
"""


def workers_of(process):
    children = Path(f"/proc/{process.pid}/task").glob("*/children")
    every = [pid for path in children for pid in path.read_text().split()]
    return [p for p in every if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_live_as_long_as_the_main_process(paths, number, tmp_path):
    """Ctrl-C reaches all; the main process here ignores it, as a run does that ends its step."""
    program = tmp_path / "program.py"
    program.write_text(f"import signal\nsignal.signal(signal.SIGINT, lambda *_: None)\n{PROGRAM}")
    command = [sys.executable, str(program), *paths]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        start_new_session=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        (worker,) = workers_of(process)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
            process.stdin.close()
            assert process.stdout.readline() == "went on\n"
        else:
            process.kill()
        process.wait(60)
    for _ in range(600):
        with contextlib.suppress(FileNotFoundError):
            if b"spawn_main" in Path(f"/proc/{worker}/cmdline").read_bytes():
                time.sleep(0.1)
                continue
        return
    raise AssertionError("the worker is still there")
