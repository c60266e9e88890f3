"""One's own encoder, loss, views and images go through the same stages as those of a flag."""

import dataclasses
import functools
import os
import subprocess
import sys

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcon
from experiments.images import two_views
from experiments.images.your_own import pretrain
from jaxcon import collectives
from jaxcon.augment import gaussian_noise
from jaxcon.data.splits import Dataset, Split
from jaxcon.losses import ntxent_loss
from jaxcon.training.metrics import read_metrics
from tests.experiments.commands import refused
from tests.experiments.folders import begin_page, content, train
from tests.trees import ROOT


class Small(nn.Module):
    width: int = 4

    @nn.compact
    def __call__(self, images, *, train):
        return nn.relu(nn.Dense(self.width)(images.reshape(len(images), -1)))


def agree(z1, z2, *, axis_name):
    z1, z2 = collectives.gather((z1, z2), axis_name)
    spread = jnp.sqrt(z1.var(axis=0) + 1e-4)
    return collectives.mean(((z1 - z2) ** 2).mean() + nn.relu(1 - spread).mean(), axis_name)


def noise(key, image):
    return gaussian_noise(key, image, std=0.1)


def images(number, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (number, 4, 4, 1), np.uint8)
    return Split(pixels, np.arange(number, dtype=np.int32) % 2)


DATA = Dataset("dots", images(32, 0), images(16, 1), images(16, 2), ("even", "odd"))


def page(*flags, **handed):
    """A page of one's own."""
    settings = {"loss": agree, "encoder": Small(), "transform": noise, "dataset": DATA}
    arguments = ["--epochs=3", "--batch-size=8", "--checkpoint-every=12", *flags]
    pretrain("mine", **{**settings, **handed}, arguments=arguments)


begun = functools.partial(begin_page, page)


@pytest.fixture(scope="module")
def begun_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun")
    begun(folder)
    return folder


@pytest.mark.slow
def test_the_losses_are_those_of_one_device_on_two(monkeypatch, tmp_path):
    monkeypatch.setattr(two_views, "conclude", lambda *_, **__: None)
    losses = []
    for number in (1, 2):
        page(f"--workdir={tmp_path / str(number)}", f"--num-devices={number}")
        rows = read_metrics(tmp_path / str(number) / "metrics.jsonl")
        losses.append([row["loss"] for row in rows])
    assert len(losses[0]) == 12
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_config_names_what_is_of_a_library_and_says_what_is_the_users(tmp_path):
    loss = functools.partial(ntxent_loss, temperature=0.2)
    _, config = begun(tmp_path / "run", loss=loss)
    assert config["experiment"] == "mine"
    assert config["own_loss"] == "jaxcon.losses.softmax.ntxent_loss(temperature=0.2)"
    assert config["own_transform"] == "the user's own noise"
    assert config["own_dataset"] == "the user's own dots"
    assert config["model"]["encoder"]["own"] == "the user's own Small"


def test_what_is_not_handed_over_is_that_of_the_flags(tmp_path):
    folder = tmp_path / "run"
    given, config = begun(folder, "--encoder=mlp", encoder=None, transform=None)
    assert config["encoder"] == "mlp"
    assert not {"own_encoder", "own_transform"} & config.keys()
    train(given)
    assert jaxcon.load_run(folder).embed_images(DATA.test.images).shape == (16, 512)


@pytest.mark.parametrize(
    ("flags", "handed", "said"),
    [
        ((), {"encoder": Small(5)}, "model.encoder.width"),
        ((), {"loss": ntxent_loss}, "own_loss"),
        ((), {"dataset": dataclasses.replace(DATA, train=images(32, 5))}, "other data"),
        (("--encoder=mlp",), {}, "--encoder=mlp: the page passes in its own; leave it out"),
        (("--dataset=cifar10",), {}, "--dataset=cifar10: the page passes in its own"),
        ((), {"chance": 0.0}, "expected a loss above 0; pass chance="),
    ],
)
def test_one_line_for_what_cannot_go_on(begun_once, capsys, flags, handed, said):
    before = content(begun_once)
    flags = (f"--workdir={begun_once}", *flags)
    assert said in refused(lambda given: page(*given, **handed), flags, capsys)
    assert content(begun_once) == before


def test_only_the_user_can_build_the_encoder_again(tmp_path):
    folder = tmp_path / "run"
    train(begun(folder)[0])
    with pytest.raises(
        ValueError, match=r"its encoder is the user's own Small, .* networks=\{'encoder"
    ):
        jaxcon.load_run(folder)
    with pytest.raises(ValueError, match=r"its checkpoint and its config\.json disagree"):
        jaxcon.load_run(folder, networks={"encoder": Small(7)})
    run = jaxcon.load_run(folder, networks={"encoder": Small()})
    assert run.embed_images(DATA.test.images).shape == (16, 4)


PAGE = """
from jaxcon.losses import vicreg_loss
from experiments.images.your_own import pretrain
pretrain("mine", loss=vicreg_loss)
"""


@pytest.mark.slow
def test_a_page_outside_of_the_checkout(tmp_path):
    (tmp_path / "page.py").write_text(PAGE)
    command = [sys.executable, tmp_path / "page.py", "--epochs=1", f"--workdir={tmp_path / 'run'}"]
    environ = {**os.environ, "PYTHONPATH": "."}
    subprocess.run(command, check=True, cwd=ROOT, env=environ, capture_output=True)
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("loss", [lambda z1, z2: 0.0, lambda z, *, axis_name: 0.0])
def test_a_loss_that_is_called_otherwise_is_named(loss):
    with pytest.raises(
        TypeError, match=r"^loss: expected a function \(z1, z2, \*, axis_name\), got "
    ):
        pretrain("toy", loss=loss)
