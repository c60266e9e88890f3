"""Flags for what does not fit into memory: the same run, to rounding."""

import functools
import json

import pytest

from jaxcon.training.metrics import read_metrics
from tests.experiments.trajectories import LOSSES, Own, Trajectory, train, train_own
from tests.marks import slow_unless

OF_PAIRS = ("--exchange=ring", "--block-size=3")


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    """The run without any of the flags, on one device."""

    @functools.cache
    def run(name: str, *flags: str) -> Trajectory:
        return train(name, tmp_path_factory.mktemp("plain"), data, "--num-devices=1", *flags)

    return run


FLAGS = {
    "of pairs": ("--encoder=vit", *OF_PAIRS),
    "remat": ("--encoder=mlp", "--remat"),  # with batch statistics
    "chunks": ("--encoder=vit", "--chunk-size=2"),
    "shards": ("--encoder=mlp", "--shard-state"),  # with batch statistics
    "all": ("--encoder=vit", *OF_PAIRS, "--remat", "--chunk-size=1", "--shard-state"),
}
CASES = [
    (name, kind, devices)
    for name in LOSSES
    for kind in FLAGS
    for devices in (1, 4)
    if kind != "all" or devices == 4
]
QUICK = [
    ("simclr", "remat", 4),
    ("barlow_twins", "shards", 4),
    ("simclr", "all", 4),
    ("clip", "chunks", 1),
]


@pytest.mark.parametrize("case", slow_unless(QUICK.__contains__, CASES), ids=str)
def test_a_flag_changes_nothing_but_rounding(plain, data, tmp_path, case):
    name, kind, devices = case
    encoder, *flags = FLAGS[kind]
    of_run = (encoder, *LOSSES[name])
    got = train(name, tmp_path / "run", data, f"--num-devices={devices}", *of_run, *flags)
    got.assert_close(plain(name, *of_run))
    assert got.divided == ("--shard-state" in flags and devices > 1)


@pytest.mark.parametrize("flags_first", slow_unless([False].__contains__, [False, True]))
def test_a_run_goes_on_with_or_without_them_on_other_devices(plain, data, tmp_path, flags_first):
    folder, (encoder, *flags) = tmp_path / "run", FLAGS["all"]
    parts = [("--num-devices=1",), ("--num-devices=4", *flags)]
    before, after = reversed(parts) if flags_first else parts
    train("simclr", folder, data, encoder, *before, stop=3)
    assert len(read_metrics(folder / "metrics.jsonl")) == 3
    train("simclr", folder, data, encoder, *after).assert_close(plain("simclr", encoder))
    config = json.loads((folder / "config.json").read_text())
    assert not {"exchange", "block_size", "remat", "chunk_size", "shard_state"} & config.keys()


def test_an_encoder_of_your_own(data, tmp_path):
    plain = train_own(tmp_path / "plain", data, Own(), "--num-devices=1")
    flags = ["--num-devices=4", "--remat", "--chunk-size=1", "--shard-state"]
    train_own(tmp_path / "other", data, Own(), *flags).assert_close(plain)
