"""`--loss-precision`: what it is filled in with, that the step multiplies so, and what is refused."""

import json
import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from experiments import barlow_twins, clip, simclr
from experiments.images.model import Model
from experiments.images.model import make_loss as loss_of_views
from experiments.pairs.model import DualEncoder, make_loss
from experiments.running.options import parse
from jaxcon.encoders import ProjectionHead
from jaxcon.encoders.dual import Side
from tests.experiments.commands import refused

BATCH, SIDE = 64, 8  # both sides of a product: 64 or 128 rows, the encoders' kernels are smaller
PRODUCTS = {
    "highest": ("f32", "HIGHEST"),
    "high": ("f32", "HIGH"),
    "bf16": ("bf16", "DEFAULT"),
}


class Encoder(nn.Module):
    """Features of images or tokens, [batch, 4]."""

    @nn.compact
    def __call__(self, inputs, *, train):
        return nn.Dense(4)(inputs.reshape(len(inputs), -1).astype(jnp.float32))


def configured(page, config, *flags):
    """The options of a command line, with everything filled in."""
    resolved = page.resolve(
        parse(config, program="x", arguments=[*flags, "--batch-size=64"]), BATCH, 8
    )
    return resolved[0] if isinstance(resolved, tuple) else resolved


def simclr_step(*flags):
    objective = simclr.objective(configured(simclr, simclr.SimCLR, *flags))
    model = Model(Encoder(), ProjectionHead(hidden=8, dim=4, axis_name="batch"))
    return model, loss_of_views(model, lambda key, image: image, objective.loss), ()


def clip_step(*flags):
    objective = clip.objective(configured(clip, clip.CLIP, *flags))
    sides = (Side(Encoder(), 4, objective.log_std) for _ in range(2))
    model = DualEncoder(*sides, scalars=objective.scalars)
    loss = make_loss(model, objective, lambda key, image: image)
    return model, loss, (jnp.zeros((1, 5), jnp.int32),)


def multiplied(model, loss_fn, tokens):
    """(operand, precision) of the products of all rows with all rows, in the program of a step."""
    variables = model.init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 1)), *tokens, train=False)
    params, carried = variables["params"], {k: v for k, v in variables.items() if k != "params"}
    batch = {
        "image": jnp.zeros((BATCH, SIDE, SIDE, 1)),
        "tokens": jnp.zeros((BATCH, 5), jnp.int32),
        "index": jnp.arange(BATCH),
    }

    @partial(
        jax.shard_map,
        mesh=Mesh(np.array(jax.devices()[:1]), ("batch",)),
        in_specs=(PartitionSpec(), PartitionSpec("batch")),
        out_specs=PartitionSpec(),
    )
    def gradient(params, batch):
        key = jax.random.key(0)
        return jax.grad(lambda p: loss_fn(p, carried, batch, key)[0])(params)

    program = jax.jit(gradient).lower(params, batch).as_text()
    shape = (
        r"dot_general.*precision = \[(\w+).* : \(tensor<(\d+)x4x(\w+)>.* -> tensor<(\d+)x(\d+)xf32>"
    )
    found = re.findall(shape, program)
    return {
        (dtype, precision)
        for precision, rows, dtype, n, m in found
        if int(n) >= BATCH and int(m) >= BATCH and int(rows) >= BATCH
    }


@pytest.mark.parametrize("step", [simclr_step, clip_step])
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), "highest"),
        (("--precision=bf16",), "bf16"),
        (("--precision=bf16", "--loss-precision=highest"), "highest"),
        (("--loss-precision=high",), "high"),
        (("--loss-precision=bf16",), "bf16"),
    ],
)
def test_the_step_multiplies_as_the_flags_say(step, flags, expected):
    assert multiplied(*step(*flags)) == {PRODUCTS[expected]}


@pytest.mark.parametrize("loss", ["siglip", "npairs", "gaussian", "csd"])
def test_every_loss_of_captions_multiplies_so(loss):
    assert multiplied(*clip_step(f"--loss={loss}", "--loss-precision=high")) == {PRODUCTS["high"]}


@pytest.mark.parametrize(
    ("page", "config", "flags", "expected"),
    [
        (simclr, simclr.SimCLR, [], "highest"),
        (simclr, simclr.SimCLR, ["--precision=bf16"], "bf16"),
        (clip, clip.CLIP, ["--precision=bf16"], "bf16"),
        (clip, clip.CLIP, ["--precision=bf16", "--loss-precision=high"], "high"),
        (barlow_twins, barlow_twins.BarlowTwins, ["--loss=sample_correlation"], "highest"),
        (barlow_twins, barlow_twins.BarlowTwins, ["--precision=bf16"], None),
    ],
)
def test_what_is_left_out_follows_the_encoder(page, config, flags, expected):
    assert configured(page, config, *flags).loss.loss_precision == expected


def test_sample_correlation_takes_it():
    flags = ["--loss=sample_correlation", "--loss-precision=high"]
    config = configured(barlow_twins, barlow_twins.BarlowTwins, *flags)
    z = jax.ShapeDtypeStruct((BATCH, 4), jnp.float32)
    loss = partial(barlow_twins.objective(config).loss, axis_name=None)
    assert "precision = [HIGH, HIGH]" in jax.jit(loss).lower(z, z).as_text()


@pytest.mark.parametrize("page", [simclr, clip, barlow_twins])
def test_help_and_a_wrong_value(page, capsys):
    said = refused(page.main, ["--loss-precision=half"], capsys)
    assert "invalid choice 'half' for argument '--loss-precision'" in said
    with pytest.raises(SystemExit):
        page.main(["--help"])
    assert "--loss-precision {highest,high,bf16}" in capsys.readouterr().out


@pytest.mark.parametrize("loss", ["barlow_twins", "vicreg"])
def test_losses_of_statistics_have_none(loss, capsys):
    said = refused(barlow_twins.main, [f"--loss={loss}", "--loss-precision=high"], capsys)
    assert f"--loss-precision=high: --loss={loss} has none; leave it out" in said


def test_a_run_from_before_the_flag_is_one_at_highest(tmp_path, capsys):
    folder = tmp_path / "run"
    flags = ["--epochs=1", "--batch-size=512", "--accelerator=cpu", "--num-devices=1"]
    flags.append(f"--workdir={folder}")
    simclr.main(flags)
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("loss_precision") == "highest"
    (folder / "config.json").write_text(json.dumps(config))
    capsys.readouterr()
    simclr.main(flags)
    assert capsys.readouterr().out.startswith("this run is finished")
    said = refused(simclr.main, [*flags, "--loss-precision=bf16"], capsys)
    assert "loss_precision was 'highest', is 'bf16'" in said
