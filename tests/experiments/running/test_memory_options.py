"""Flags for what does not fit into memory: that they reach the program, and what they refuse."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from experiments import barlow_twins, clip, simclr
from experiments.barlow_twins import BarlowTwins
from experiments.pairs.objectives import Outputs
from experiments.running.encoders import ENCODERS
from experiments.running.options import parse
from jaxcon.encoders.dual import Embedded
from tests.experiments.commands import refused
from tests.experiments.folders import begin
from tests.experiments.trajectories import LOSSES, PAGES, SMALL, Own, train_own


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
        resolved = PAGES[name].resolve(parse(config, program="x", arguments=typed), 128, 8)
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


def step_program(name: str, folder: Any, data: Any, *flags: str) -> str:
    """What a step traces for the loss and its gradient, on one device."""
    common = [f"--dataset=folder:{data[name]}", f"--workdir={folder}", "--batch-size=8"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "vit", SMALL)
        task = begin(PAGES[name].main, [*common, "--encoder=vit", *flags])["task"]
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    gradient = task.value_and_grad or jax.value_and_grad(task.loss_fn, has_aux=True)

    def step(variables: Any, batch: Any, key: Any) -> Any:
        params, carried = variables["params"], {k: variables[k] for k in variables if k != "params"}
        return gradient(params, carried, batch, key)

    mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(P(), P("batch"), P()), out_specs=P())
    batch = next(task.batches(0, None))
    return str(jax.make_jaxpr(mapped)(shapes, batch, jax.random.key(0)))


@pytest.mark.parametrize("name", ["simclr", "clip"])
def test_the_encoder_is_differentiated_as_the_flags_say(name, data, tmp_path):
    plain = step_program(name, tmp_path / "plain", data)
    assert "remat" not in plain
    assert "length=3" not in plain
    assert "remat" in step_program(name, tmp_path / "remat", data, "--remat")
    # The first of four chunks is outside of the loop over chunks.
    assert "length=3" in step_program(name, tmp_path / "chunks", data, "--chunk-size=2")


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
    settings = ("--exchange {gather,ring}", "--block-size INT", "--chunk-size INT")
    for flag in (*settings, "--remat", "--shard-state"):
        assert flag in text
