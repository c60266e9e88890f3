"""Barlow Twins and its kin: the same losses on any number of devices, short runs, refused options."""

import contextlib
import functools
import json
import math

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P
from PIL import Image

from experiments import barlow_twins
from experiments.barlow_twins import BarlowTwins, Loss
from experiments.images import two_views
from experiments.images.model import Model, make_loss
from experiments.images.recipes import DIGITS, Images
from experiments.images.redundancy import cross_correlation
from experiments.images.two_views import Objective
from experiments.running.options import Machine, Training, flag, flat
from experiments.running.process import jit_once
from jaxcon.augment import gaussian_noise
from jaxcon.encoders import MLP, ProjectionHead
from jaxcon.training import loop
from jaxcon.training.devices import batch_sharding, make_mesh, replicate
from jaxcon.training.metrics import read_metrics
from jaxcon.training.state import create_state
from jaxcon.training.step import make_train_step
from tests.experiments.commands import refused

NAMES = ("barlow_twins", "vicreg", "sample_correlation")
each = pytest.mark.parametrize("name", NAMES)
CHANCE = {"barlow_twins": 8, "vicreg": 25 * 0.99, "sample_correlation": 0.025 * 32}
NOISE = functools.partial(gaussian_noise, std=0.5)
SHORT = ["--epochs=2", "--accelerator=cpu"]


def objective(name: str, **weights: float) -> Objective:
    """Of 32 pairs of 8 features."""
    training = Training(batch_size=32)
    config = BarlowTwins(Images(projection_dim=8), Loss(name, **weights), training)
    return barlow_twins.objective(barlow_twins.resolve(config, 64, 8)[0])


@functools.cache
def losses(name: str, devices: int) -> np.ndarray:
    """The first 20 losses of a small model, its batch shared by some devices."""
    model = Model(
        encoder=MLP(widths=(16,), axis_name="batch"),
        head=ProjectionHead(layers=1, dim=8),
    )
    train_step = make_train_step(make_loss(model, NOISE, objective(name).loss))
    mesh = make_mesh(jax.devices()[:devices])
    over_all = {"mesh": mesh, "in_specs": (P(), P("batch"), P()), "out_specs": P()}
    step = jit_once(jax.shard_map(train_step, **over_all))

    images = np.random.default_rng(0).integers(0, 256, (32, 4, 4, 1)).astype(np.uint8)
    start = jit_once(functools.partial(model.init, train=False))
    variables = jax.device_get(start(jax.random.key(0), images / np.float32(255)))
    state = replicate(create_state(variables, optax.adam(1e-2), apply_fn=model.apply), mesh)
    batch = {"image": images, "index": np.arange(32, dtype=np.int32)}
    batch = jax.device_put(batch, batch_sharding(mesh))
    values = []
    for _ in range(20):
        state, metrics = step(state, batch, jax.random.key(1))
        values.append(float(metrics["loss"]))
    return np.array(values)


@each
def test_each_loss_trains(name):
    values = losses(name, devices=1)
    assert np.isfinite(values).all()
    assert values[-1] < 0.95 * values[0]  # with 8 of 32 features, sample_correlation ends at 0.9


slow = functools.partial(pytest.param, marks=pytest.mark.slow)
EVERY = [slow(name, devices) for name in NAMES for devices in (2, 4, 8)]


@pytest.mark.parametrize(("name", "devices"), [("barlow_twins", 8), *EVERY])
def test_the_losses_do_not_depend_on_the_number_of_devices(name, devices):
    """Rounding is 4e-7; statistics of each device alone change the first loss by 1 % or more."""
    np.testing.assert_allclose(losses(name, devices), losses(name, 1), rtol=5e-6)


@each
def test_embeddings_that_tell_nothing_score_chance(name):
    assert objective(name).chance == pytest.approx(CHANCE[name])


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_weights_reach_the_loss(weight):
    z = np.random.default_rng(0).normal(size=(2, 32, 8)).astype(np.float32)
    c = cross_correlation(*z)
    diagonal, rest = np.diagonal(c), c[~np.eye(8, dtype=bool)]
    loss = jit_once(objective("barlow_twins", off_diagonal_weight=weight).loss)
    expected = ((diagonal - 1) ** 2).sum() + weight * (rest**2).sum()
    assert float(loss(*z)) == pytest.approx(expected, rel=1e-4)


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """A short run on eighty grey pictures without classes: nothing is scored, all is drawn."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(80):
        pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    model = ["--encoder=mlp", "--projection-dim=16", "--batch-size=8"]
    return [*SHORT, *model, f"--dataset=folder:{folder}", "--num-devices=1"]


def train(*arguments: str) -> None:
    """Run the experiment with views that, unlike those of photos, compile in a moment."""
    recipe = DIGITS._replace(transform=NOISE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(barlow_twins, "recipe_for", lambda *_: recipe)
        barlow_twins.main(arguments)


@pytest.fixture(scope="module")
def workdir(command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "pictures"
    train(*command, f"--workdir={folder}")
    return folder


@pytest.mark.slow
def test_a_run_leaves_everything_in_its_folder(workdir):
    figures = {path.name for path in (workdir / "figures").iterdir()}
    assert figures == {"loss.png", "similarity.png", "correlation.png"}
    rows = read_metrics(workdir / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(len(rows)))
    assert all(row["loss_over_chance"] == pytest.approx(row["loss"] / 16) for row in rows)
    page = (workdir / "report.html").read_text()
    assert "<h1>Barlow Twins on pictures0</h1>" in page
    assert "Correlations of the 16 features between two views of 16 test images" in page
    assert page.count("<figure><img") == 3
    assert page.count('class="columns"') == 2  # inputs and neighbours
    config = json.loads((workdir / "config.json").read_text())
    assert config["off_diagonal_weight"] == 0.005
    assert config["variance"] is None


@pytest.mark.slow
def test_another_loss_in_the_same_folder_is_refused(workdir, command, capsys):
    with pytest.raises(SystemExit) as ended:
        train(*command, f"--workdir={workdir}", "--loss=vicreg")
    assert ended.value.code == 2
    assert "loss was 'barlow_twins', is 'vicreg'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_like_an_uninterrupted_one(
    workdir, command, tmp_path, capsys, monkeypatch
):
    again = [*command, f"--workdir={tmp_path}"]
    with monkeypatch.context() as patch:
        stop = contextlib.nullcontext(lambda step: step == 3)
        patch.setattr(loop, "stop_requested", lambda: stop)
        train(*again)
    assert "stopped after step 3" in capsys.readouterr().out
    assert not (tmp_path / "results.json").exists()
    train(*again)
    assert "resumed at step 3" in capsys.readouterr().out
    for name in ("metrics.jsonl", "results.json", "figures/correlation.png"):
        assert (tmp_path / name).read_bytes() == (workdir / name).read_bytes(), name


@pytest.mark.slow
@each
def test_digits_give_the_same_losses_on_1_2_4_and_8_devices(name, tmp_path, monkeypatch):
    """The first to rounding; then Adam multiplies that.

    At the default rate, parameters moved by one unit in the last place change sample_correlation's
    eighth loss on one device by 1e-3: more than other numbers of devices do.
    """
    monkeypatch.setattr(two_views, "conclude", lambda *_, **__: None)
    values = {}
    for devices in (1, 2, 4, 8):
        folder = tmp_path / str(devices)
        flags = [*SHORT, "--learning-rate=1e-3", f"--loss={name}", f"--num-devices={devices}"]
        barlow_twins.main([*flags, f"--workdir={folder}"])
        values[devices] = [row["loss"] for row in read_metrics(folder / "metrics.jsonl")]
    assert len(values[1]) == 2 * (1259 // 256)
    for devices in (2, 4, 8):
        np.testing.assert_allclose(values[devices][:3], values[1][:3], rtol=1e-5)
        np.testing.assert_allclose(values[devices], values[1], rtol=3e-4)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--loss=vicreg", "--off-diagonal-weight=1"], "--loss=vicreg has none; leave it out"),
        (["--variance=1"], "--variance=1.0: --loss=barlow_twins has none; leave it out"),
        (["--loss=vicreg", "--variance=0"], "--variance=0.0: expected a number above 0"),
        (["--off-diagonal-weight=-1"], "--off-diagonal-weight=-1.0: expected a number of at least"),
        (["--loss=barlow"], "invalid choice 'barlow' for argument '--loss'"),
        (["--temperature=1"], "Unrecognized options: --temperature=1"),
        (["--projection-dim=0"], "--projection-dim=0: expected a number above 0"),
        (["--epochs=0"], "--epochs=0: expected a number above 0"),
        (
            ["--num-devices=3", "--batch-size=256"],
            "--batch-size=256: expected a multiple of the 3 devices",
        ),
    ],
)
def test_one_line_and_exit_code_2(flags, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in refused(barlow_twins.main, flags, capsys)


def test_help_documents_every_flag(capsys):
    with pytest.raises(SystemExit) as ended:
        barlow_twins.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for name in flat(Images(), Loss(), Training(), Machine()):
        assert flag(name) in text
    assert "None" not in text


@pytest.mark.parametrize(
    ("dataset", "examples", "side"),
    [("digits", 1259, 8), ("cifar10", 5000, 32), ("x", 256, 64), ("x", 9000, 224)],
)
def test_help_states_the_recipes(dataset, examples, side):
    config = BarlowTwins(images=Images(dataset))
    resolved, _ = barlow_twins.resolve(config, examples, side)
    training = resolved.training
    words = f"{resolved.images.encoder}, {training.epochs} epochs of {training.batch_size:,}, "
    words += f"{training.optimizer} at {training.learning_rate:g}"
    told = " ".join((BarlowTwins.__doc__ or "").replace("1.0", "1").split())
    assert words in told.replace(" images a step", "")


@each
def test_help_states_the_weights_that_a_loss_is_given(name, capsys):
    with contextlib.suppress(SystemExit):
        barlow_twins.main(["--help"])
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for option, value in barlow_twins.KINDS[name].weights.items():
        after = words.split(f"{flag(option)} FLOAT")[1]
        assert name in after.split("Default:")[0]
        assert math.isclose(float(after.split("Default: ")[1].split()[0].rstrip(".")), value)
