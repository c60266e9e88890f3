"""`--plan`: what it says of a step, that it reads and writes nothing, and what it refuses.

Virtual CPU devices take the place of a topology: their compiler is always here. Of an H100 the text of
a program is all that an estimate needs, so the numbers are of no machine, but every part is there.
"""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import pytest

from experiments import barlow_twins, clip, simclr
from experiments.images.your_own import pretrain
from experiments.running import forecast as page
from experiments.running.encoders import ENCODERS
from experiments.running.stand_in import blank_pairs
from jaxcon.data.captions import load_pairs
from jaxcon.data.shipped import CONTENTS
from jaxcon.data.sources import load
from jaxcon.encoders.tokenizer import Tokenizer
from jaxcon.losses import dcl_loss
from jaxcon.planning import forecast as library
from jaxcon.planning.topologies import CHIPS
from tests.experiments.commands import refused
from tests.experiments.trajectories import SMALL

PLAN = "--plan=h100:4"


@pytest.fixture
def there(monkeypatch, tmp_path):
    """A place with four CPU devices that pass for H100s."""
    monkeypatch.setattr(page, "devices", lambda topology: jax.devices()[:4])
    monkeypatch.setitem(ENCODERS, "vit", SMALL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(main: Any, capsys: Any, *flags: str) -> tuple[str, dict[str, Any]]:
    """What a command with `--plan` prints, and its JSON."""
    main([PLAN, "--plan-json=plan.json", *flags])
    return capsys.readouterr().out, json.loads(Path("plan.json").read_text())


def test_a_plan_says_what_a_step_takes(there, capsys, monkeypatch):
    flags = ["--image-size=24", "--encoder=resnet18", "--batch-size=16", "--epochs=3"]
    said, found = planned(simclr.main, capsys, *flags, "--plan-examples=1000")
    assert "4 x NVIDIA H100" in said
    assert "16 images of 24 x 24 pixels" in said
    assert "3 epochs of 1,000 images, 186 steps" in said
    assert [path.name for path in there.iterdir()] == ["plan.json"]  # no folder of a run
    assert found["fits"]
    assert found["needed"] > found["arguments"] > 4 * found["parameters"] > 4 * 11_000_000
    assert found["image_shape"] == [24, 24, 3]
    assert found["images_per_second"] == pytest.approx(16e3 / found["ms"])
    assert found["hours"] == pytest.approx(186 * found["ms"] / 3.6e6)
    assert 0 < found["loss_share"] < 0.5
    # Two views of four images, forward and twice that backward: 0.56 G products at 32 x 32 pixels. XLA
    # leaves out those with the zeros around a map, a fifth of them here.
    forward = 2 * 4 * 2 * 0.557e9 * (24 / 32) ** 2
    assert 0.7 < found["flop"] / (3 * forward) < 1.05
    # Gradients go round as often as it takes to add them up: two parts in three quarters.
    gradients = 4 * found["parameters"] * 2 * 3 // 4
    assert gradients < found["collectives"]["all-reduce"]["sent"] < 1.1 * gradients


@pytest.mark.slow
@pytest.mark.parametrize("main", [barlow_twins.main, clip.main])
def test_of_every_experiment(there, capsys, main):
    said, found = planned(main, capsys, "--encoder=mlp", "--batch-size=16", "--image-size=16")
    usual = 10_000_000 if main is clip.main else 1_281_167
    assert found["examples"] == usual
    assert f"of {usual:,} images" in said
    assert found["loss_share"] > 0


def test_a_plan_of_what_ships_needs_no_size(there, capsys):
    _, found = planned(simclr.main, capsys, "--batch-size=16")
    assert found["image_shape"] == [8, 8, 1]
    assert found["examples"] == 1259


@pytest.mark.slow
def test_flags_are_tried_where_it_does_not_fit(there, capsys, monkeypatch):
    flags = ["--image-size=32", "--encoder=vit", "--batch-size=256"]
    plain = planned(simclr.main, capsys, *flags)[1]["needed"]
    chunks = planned(simclr.main, capsys, *flags, "--chunk-size=16")[1]["needed"]
    assert chunks < 0.6 * plain
    small = CHIPS["h100"]._replace(memory=(chunks + plain) / 2**31)
    monkeypatch.setattr(library, "chip_of", lambda topology: small)
    said, found = planned(simclr.main, capsys, *flags)
    assert "IT DOES NOT FIT" in said
    assert not found["fits"]
    assert [each["fits"] for each in found["tried"]][-1]
    assert found["tried"][-1]["flags"] == "--chunk-size=16"
    assert found["tried"][-1]["needed"] == chunks
    assert "with --chunk-size=16" in said


def test_chunks_are_not_proposed_for_batch_norm(there, capsys, monkeypatch):
    small = CHIPS["h100"]._replace(memory=2**-20)
    monkeypatch.setattr(library, "chip_of", lambda topology: small)
    said, found = planned(simclr.main, capsys, "--batch-size=16")
    assert [each["flags"] for each in found["tried"]] == ["--remat"]
    assert "none of the flags tried makes it fit" in said


def test_the_words_fill_the_vocabulary():
    dataset = blank_pairs("photographs", (8, 8, 3), vocabulary=2000)
    texts = [text for captions in dataset.train.captions for text in captions]
    assert Tokenizer.train(texts, vocabulary=2000).vocabulary == 2000


@pytest.mark.slow
def test_what_ships_is_as_a_plan_takes_it():
    digits = load("digits").train
    assert CONTENTS["digits"] == (digits.image_shape, len(digits))
    scenes = load_pairs("scenes").train
    assert CONTENTS["scenes"] == (scenes.images.image_shape, len(scenes))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--plan=v9:2x2"], "--plan=v9:2x2: topology must be of one of v5e, v5p, v6e, h100"),
        (
            [PLAN, "--plan-json=a/b.json"],
            "--plan-json=a/b.json: cannot be written to (No such file",
        ),
        ([PLAN, "--plan-json=gs://a/b.json"], "expected a path of this machine"),
        (["--plan-json=a.json"], "--plan-json=a.json: only --plan has a use for it"),
        ([PLAN, "--num-devices=2"], "--num-devices=2: --plan=h100:4 says how many; leave it out"),
        (["--plan-examples=9"], "--plan-examples=9: only --plan has a use for it"),
        (
            [PLAN, "--dataset=cifar10"],
            "--plan reads no data, and cifar10 may have images of any size",
        ),
        ([PLAN, "--batch-size=18"], "--batch-size=18: expected a multiple of the 4 devices"),
    ],
)
def test_what_cannot_be_planned_is_one_line(there, capsys, flags, said):
    assert said in refused(simclr.main, flags, capsys)


@pytest.mark.slow
def test_a_plan_beside_a_run_in_a_bucket(there, capsys):
    flags = ["--workdir=gs://bucket/run", "--encoder=mlp", "--batch-size=16", "--image-size=16"]
    assert planned(clip.main, capsys, *flags)[1]["fits"]


def test_a_plan_of_a_loss_of_ones_own(there, capsys):
    """Also of one that has nothing to say about two rows: each is the other's positive."""
    loss = functools.partial(dcl_loss, temperature=0.5)

    def main(flags: list[str]) -> None:
        pretrain("own", loss=loss, arguments=[*flags, "--batch-size=16"])

    assert planned(main, capsys)[1]["loss_share"] > 0


def test_a_missing_compiler_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jaxcon.planning.topologies.missing", lambda platform: f"pip {platform}")
    said = refused(simclr.main, ["--plan=v5e:4x4"], capsys)
    assert "--plan=v5e:4x4: to compile for TPU v5e takes its compiler: pip tpu" in said
