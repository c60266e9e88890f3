"""The text encoders that a flag names: their size, their context, and what a run's folder says."""

import functools
import json

import jax
import jax.numpy as jnp
import pytest

from experiments import clip
from experiments.pairs import your_own
from experiments.pairs.model import make_model
from experiments.pairs.objectives import make_objective
from experiments.running.encoders import TEXT_ENCODERS
from experiments.running.options import parse
from jaxcon.encoders import MLP, TextTransformer
from jaxcon.encoders.describe import build
from jaxcon.losses import clip_loss
from tests.experiments.commands import refused
from tests.experiments.folders import begin, captioned


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return captioned(tmp_path_factory.mktemp("birds"))


def begun(folder, workdir, *flags):
    """What a command would train, and its config.json."""
    common = [f"--dataset=folder:{folder}", f"--workdir={workdir}", "--encoder=mlp"]
    given = begin(clip.main, [*common, "--batch-size=8", *flags])
    return given["task"], json.loads((workdir / "config.json").read_text())


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], ("small", 64)),
        (["--context-length=9"], ("small", 9)),
        (["--text-encoder=base"], ("base", 77)),
        (["--text-encoder=base", "--context-length=64"], ("base", 64)),
    ],
)
def test_the_context_follows_the_encoder_unless_it_is_given(flags, expected):
    pairs = clip.resolve(parse(clip.CLIP, program="clip", arguments=flags), 128, 64).pairs
    assert (pairs.text_encoder, pairs.context_length) == expected


def test_one_name_is_one_network_in_the_folder_of_a_run(folder, tmp_path):
    task, config = begun(folder, tmp_path / "run", "--text-encoder=base")
    assert (config["text_encoder"], config["context_length"]) == ("base", 77)
    assert config["tokenizer"]["length"] == 77
    described = config["model"]["text"]["encoder"]
    assert [described[name] for name in ("dim", "depth", "heads")] == [512, 12, 8]
    assert build(described) == task.network.modules["text"].encoder.clone(axis_name=None)
    positions = jax.eval_shape(task.init, jax.random.key(0))["params"]["text"]["encoder"][
        "positions"
    ]
    assert positions.shape == (77, 512)


def test_the_default_is_the_small_one():
    settings = {"side": 8, "vocabulary": 300, "dim": 4, "precision": "f32"}
    models = {
        name: make_model("mlp", make_objective("clip", None), text=name, **settings)
        for name in TEXT_ENCODERS
    }
    assert models["small"] == make_model("mlp", make_objective("clip", None), **settings)
    small = TextTransformer(300, dim=64, depth=1, heads=2, axis_name="batch")
    assert models["small"].text.encoder == small
    assert models["base"].text.encoder != small


def test_a_run_from_before_the_flag_had_the_small_one(folder, tmp_path, capsys):
    run = tmp_path / "run"
    begun(folder, run)
    config = json.loads((run / "config.json").read_text())
    assert config.pop("text_encoder") == "small"
    (run / "config.json").write_text(json.dumps(config))
    begun(folder, run)
    assert "text_encoder" not in json.loads((run / "config.json").read_text())
    flags = [f"--dataset=folder:{folder}", f"--workdir={run}", "--encoder=mlp", "--batch-size=8"]
    flags += ["--accelerator=cpu", "--num-devices=1", "--text-encoder=base"]
    said = refused(clip.main, flags, capsys)
    assert "text_encoder was 'small', is 'base'" in said


def test_a_page_with_its_own_takes_no_flag(folder, tmp_path, capsys):
    own = {"loss": clip_loss, "text_encoder": TextTransformer(300, dim=8, depth=1, heads=2)}
    own["image_encoder"] = MLP(widths=(4,))
    pretrain = functools.partial(your_own.pretrain, "mine", **own)
    common = [f"--dataset=folder:{folder}", f"--workdir={tmp_path / 'run'}", "--batch-size=8"]
    common += ["--accelerator=cpu", "--num-devices=1", "--vocabulary=300"]

    def main(flags):
        pretrain(arguments=flags)

    said = refused(main, [*common, "--text-encoder=base"], capsys)
    assert "--text-encoder=base: the page passes in its own; leave it out" in said
    begin(main, common)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["text_encoder"] is None


def test_a_name_that_is_none_is_one_line(capsys):
    said = refused(clip.main, ["--text-encoder=large"], capsys)
    assert "invalid choice 'large' for argument '--text-encoder'" in said


def test_bfloat16_reaches_both_encoders():
    model = make_model(
        "vit_s16",
        make_objective("clip", None),
        text="base",
        side=32,
        vocabulary=300,
        dim=4,
        precision="bf16",
    )
    assert model.image.encoder.dtype == model.text.encoder.dtype == jnp.bfloat16
