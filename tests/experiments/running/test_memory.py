"""Flags for what does not fit into memory: the same run, to rounding, and what they refuse."""

import contextlib
import functools
import json
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from experiments import barlow_twins, clip, simclr
from experiments.barlow_twins import BarlowTwins
from experiments.images import two_views
from experiments.images.recipes import DIGITS
from experiments.images.your_own import pretrain
from experiments.pairs import dual
from experiments.pairs.objectives import Outputs
from experiments.running.encoders import ENCODERS, Entry
from experiments.running.options import parse
from jaxcon.augment import gaussian_noise
from jaxcon.encoders import ViT
from jaxcon.encoders.dual import Embedded
from jaxcon.losses import ntxent_loss
from jaxcon.training import loop
from jaxcon.training.metrics import read_metrics
from tests.experiments.commands import refused
from tests.experiments.folders import captioned, pictures
from tests.marks import slow_unless

PAGES = {"simclr": simclr, "barlow_twins": barlow_twins, "clip": clip}
OF_PAIRS = ("--exchange=ring", "--block-size=3")
STEPS = 6  # two epochs of the 28 training images, 8 at a time
SMALL = Entry(functools.partial(ViT, dim=16, depth=1, heads=2))
NOISE = functools.partial(gaussian_noise, std=0.5)  # compiles in a moment
RECIPE = DIGITS._replace(transform=NOISE)


@pytest.fixture(autouse=True, scope="module")
def eight_devices():
    """Set up all of them before a command line divides the CPU into fewer."""
    assert len(jax.devices()) == 8


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of pictures with classes, and one of pictures with captions."""
    root = tmp_path_factory.mktemp("data")
    return {"clip": captioned(root / "birds")} | dict.fromkeys(
        ("simclr", "barlow_twins"), pictures(root / "pets")
    )


class Trajectory:
    """The losses of a run, and its variables after the last step."""

    def __init__(self, losses: list[float], variables: Any) -> None:
        self.losses, self.variables = losses, variables

    def assert_close(self, other: "Trajectory") -> None:
        assert len(self.losses) == len(other.losses) == STEPS
        np.testing.assert_allclose(self.losses, other.losses, rtol=1e-4)
        ours, theirs = (jax.tree.leaves(run.variables) for run in (self, other))
        for a, b in zip(ours, theirs, strict=True):
            assert np.linalg.norm(a - b) <= 1e-4 * max(1e-2, float(np.linalg.norm(b)))


def train(name: str, folder: Any, data: Any, *flags: str, stop: int | None = None) -> Trajectory:
    """Runs a command without what follows training, to its end or until some step."""
    runs: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        for module in (two_views, dual):
            patch.setattr(module, "conclude", lambda workdir, run, **_: runs.append(run))
        for module in (simclr, barlow_twins):
            patch.setattr(module, "recipe_for", lambda *_: RECIPE)
        patch.setattr(clip, "Method", functools.partial(dual.Method, transform=NOISE))
        patch.setitem(simclr.TEMPERATURES, RECIPE, 0.5)
        patch.setitem(ENCODERS, "vit", SMALL)
        if stop is not None:
            until = contextlib.nullcontext(lambda step: step == stop)
            patch.setattr(loop, "stop_requested", lambda: until)
        common = [f"--dataset=folder:{data[name]}", f"--workdir={folder}", "--accelerator=cpu"]
        common += ["--epochs=2", "--batch-size=8", "--projection-dim=8"]
        # Adam divides gradients by their own size: of those that are 0 it leaves rounding alone.
        common += ["--optimizer=sgd", "--learning-rate=0.1"]
        PAGES[name].main([*common, *flags])
    losses = [row["loss"] for row in read_metrics(folder / "metrics.jsonl")]
    return Trajectory(losses, runs[0].after if runs else None)


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    """The run without any of the flags, on one device."""

    @functools.cache
    def run(name: str, *flags: str) -> Trajectory:
        return train(name, tmp_path_factory.mktemp("plain"), data, "--num-devices=1", *flags)

    return run


# What a run is given besides: experiment and loss, which every flag is tried with.
LOSSES = {
    "simclr": (),
    "barlow_twins": ("--loss=sample_correlation",),
    "clip": (),
}
FLAGS = {
    "of pairs": ("--encoder=vit", *OF_PAIRS),
    "remat": ("--encoder=mlp", "--remat"),  # with batch statistics
    "chunks": ("--encoder=vit", "--chunk-size=2"),
    "all": ("--encoder=vit", *OF_PAIRS, "--remat", "--chunk-size=1"),
}
CASES = [
    (name, kind, devices)
    for name in LOSSES
    for kind in FLAGS
    for devices in (1, 4)
    if kind != "all" or devices == 4
]
QUICK = [("simclr", "remat", 4), ("simclr", "chunks", 1), ("simclr", "all", 4), ("clip", "all", 4)]


@pytest.mark.parametrize("case", slow_unless(QUICK.__contains__, CASES), ids=str)
def test_a_flag_changes_nothing_but_rounding(plain, data, tmp_path, case):
    name, kind, devices = case
    encoder, *flags = FLAGS[kind]
    of_run = (encoder, *LOSSES[name])
    got = train(name, tmp_path / "run", data, f"--num-devices={devices}", *of_run, *flags)
    got.assert_close(plain(name, *of_run))


def test_a_run_without_them_goes_on_with_them_on_more_devices(plain, data, tmp_path):
    folder, (encoder, *flags) = tmp_path / "run", FLAGS["all"]
    train("simclr", folder, data, encoder, "--num-devices=1", stop=3)
    assert len(read_metrics(folder / "metrics.jsonl")) == 3
    got = train("simclr", folder, data, encoder, "--num-devices=4", *flags)
    got.assert_close(plain("simclr", encoder))
    config = json.loads((folder / "config.json").read_text())
    assert not {"exchange", "block_size", "remat", "chunk_size"} & config.keys()


def lowered(loss: Any, *shapes: tuple[int, ...]) -> str:
    """The program of a loss of arrays whose rows are on four devices."""
    mesh = Mesh(np.array(jax.devices()[:4]), ("batch",))
    mapped = jax.shard_map(loss, mesh=mesh, in_specs=P("batch"), out_specs=P())
    return jax.jit(mapped).lower(*(jnp.ones(shape) for shape in shapes)).as_text()


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_evaluated_as_the_flags_say(name):
    config = {"simclr": simclr.SimCLR, "barlow_twins": BarlowTwins, "clip": clip.CLIP}[name]

    def program(*flags: str) -> str:
        typed = ["--batch-size=64", *LOSSES[name], *flags]
        resolved = PAGES[name].resolve(parse(config, program="x", arguments=typed), 128)
        goal = PAGES[name].objective(resolved[0] if isinstance(resolved, tuple) else resolved)

        def loss(z1: Any, z2: Any) -> Any:
            if name != "clip":
                return goal.loss(z1, z2, axis_name="batch")
            return goal.loss(Outputs(Embedded(z1), Embedded(z2), goal.scalars))

        return lowered(loss, (64, 4), (64, 4))

    assert "collective_permute" not in program("--exchange=gather")
    assert "collective_permute" in program("--exchange=ring")
    assert "7x7xf32" not in program()
    assert "7x7xf32" in program("--block-size=7")


@pytest.mark.parametrize(
    ("page", "flags", "said"),
    [
        (
            barlow_twins,
            ["--exchange=ring"],
            "--exchange=ring: --loss=barlow_twins has none; leave it out",
        ),
        (
            barlow_twins,
            ["--loss=vicreg", "--block-size=8"],
            "--block-size=8: --loss=vicreg has none; leave it out",
        ),
        (simclr, ["--block-size=0"], "--block-size=0: expected a number above 0"),
        (simclr, ["--exchange=star"], "invalid choice 'star' for argument '--exchange'"),
        (simclr, ["--chunk-size=-1"], "--chunk-size=-1: expected a number above 0"),
        (
            simclr,
            ["--batch-size=64", "--encoder=vit", "--chunk-size=24"],
            "--chunk-size=24: expected a divisor of 64, the images of one device (a batch of 64 on "
            "1); choose 16 or 32",
        ),
        (
            simclr,
            ["--batch-size=64", "--encoder=vit", "--chunk-size=64", "--num-devices=4"],
            "--chunk-size=64: expected a divisor of 16, the images of one device (a batch of 64 on "
            "4); choose 8 or 16",
        ),
        (
            simclr,
            ["--batch-size=64", "--chunk-size=16"],
            "--chunk-size=16: mlp has batch_stats, statistics of the whole batch, which an encoder "
            "does not see in chunks; choose --encoder=vit, or pass in one of your own with group "
            "normalization",
        ),
    ],
)
def test_what_cannot_be_is_one_line(page, flags, said, capsys, tmp_path):
    flags = ["--accelerator=cpu", f"--workdir={tmp_path / 'run'}", *flags]
    assert said in refused(page.main, flags, capsys)
    assert not (tmp_path / "run").exists()


def test_captions_name_the_encoder_with_statistics(data, capsys, tmp_path):
    flags = [f"--dataset=folder:{data['clip']}", f"--workdir={tmp_path / 'run'}"]
    flags += ["--accelerator=cpu", "--num-devices=1", "--batch-size=8", "--chunk-size=4"]
    assert "--chunk-size=4: layout_convnet has batch_stats" in refused(clip.main, flags, capsys)


class Own(nn.Module):
    """An encoder that is not jaxcon's; with statistics of the batch or without."""

    groups: int = 2

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(4, (3, 3))(images)
        norm = nn.GroupNorm(self.groups) if self.groups else nn.BatchNorm(not train)
        return nn.relu(norm(x)).reshape(len(x), -1)


def train_own(folder: Any, data: Any, encoder: Any, *flags: str) -> Trajectory:
    """Runs a page that passes in its loss and its encoder."""

    def main(arguments: list[str]) -> None:
        pretrain("own", loss=ntxent_loss, encoder=encoder, transform=NOISE, arguments=arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PAGES, "simclr", SimpleNamespace(main=main))
        return train("simclr", folder, data, *flags)


def test_an_encoder_of_your_own(data, tmp_path):
    plain = train_own(tmp_path / "plain", data, Own(), "--num-devices=1")
    flags = ["--num-devices=4", "--remat", "--chunk-size=1"]
    train_own(tmp_path / "other", data, Own(), *flags).assert_close(plain)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--chunk-size=4", "Own has batch_stats, statistics of the whole batch"),
        ("--block-size=4", "the loss is passed in with all its settings; give it there"),
    ],
)
def test_what_your_own_cannot_take(data, capsys, tmp_path, flag, said):
    def main(flags: list[str]) -> None:
        train_own(tmp_path / "run", data, Own(groups=0), "--num-devices=1", *flags)

    assert f"{flag}: {said}" in refused(main, [flag], capsys)


@pytest.mark.parametrize("page", PAGES.values())
def test_help_names_them(page, capsys):
    with pytest.raises(SystemExit):
        page.main(["--help"])
    text = capsys.readouterr().out
    for flag in ("--exchange {gather,ring}", "--block-size INT", "--remat", "--chunk-size INT"):
        assert flag in text
