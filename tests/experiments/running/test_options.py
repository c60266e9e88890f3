"""The command line: values that cannot work are refused in one line, before any work."""

import math
from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
import pytest

from experiments import simclr
from experiments.images.recipes import DIGITS, FEW_PHOTOS, Images
from experiments.pairs.model import make_model
from experiments.pairs.objectives import make_objective
from experiments.running import options
from experiments.running.encoders import Encoder, check_tiles, make_encoder
from experiments.running.options import Machine, Training, check_training, flat
from experiments.running.plan import make_plan, share_batch
from jaxcon import encoders
from jaxcon.augment import simclr_transform
from tests.experiments.commands import refused


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--temperature=-1", "--temperature=-1.0: expected a number above 0"),
        ("--temperature=nan", "--temperature=nan: expected a number above 0"),
        ("--temperature=0", "--temperature=0.0: expected"),
        ("--epochs=0", "--epochs=0: expected a number above 0"),
        ("--seed=-1", "--seed=-1: expected a number of at least 0"),
        ("--ema=1", "--ema=1.0: expected a number above 0 and below 1"),
        ("--learning-rate=inf", "--learning-rate=inf: expected"),
        ("--weight-decay=-0.1", "--weight-decay=-0.1: expected a number of at least 0"),
        ("--projection-dim=0", "--projection-dim=0: expected"),
        ("--dataset=folder:/no/such/folder", "/no/such/folder"),
        ("--dataset=digitz", "did you mean digits"),
        ("--batch-size=5000", "--batch-size=5000: larger than the 1259 training images"),
        ("--batch-size=1", "--batch-size=1: expected a multiple"),
        ("--workdir=/proc/jaxcon", "--workdir=/proc/jaxcon: cannot be written to"),
        (f"--workdir={'x' * 300}", "xxx…: cannot be written to (File name too long)"),
        (f"--workdir={'x' * 300}/run", "xxx…: cannot be written to (File name too long)"),
        (f"--start-from=/{'x' * 300}", "--start-from=/xxx"),
        (f"--start-from={'x' * 300}", "xxx…: cannot be read (File name too long)"),
    ],
)
def test_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch, flag, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(simclr.main, [flag], capsys)


def test_a_workdir_that_is_a_file(capsys, tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    assert "expected a folder, found a file" in refused(simclr.main, [f"--workdir={path}"], capsys)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--temperatur=1", "Unrecognized options: --temperatur=1; did you mean --temperature?"),
        ("--encoder=resnet81", "invalid choice 'resnet81' for argument '--encoder'"),
        ("--optimizer=None", "invalid choice 'None' for argument '--optimizer'"),
        ("--epochs=many", "Error parsing --epochs"),
        ("--epochs", "Missing value for argument '--epochs'"),
        ("--workdir=", "Error parsing --workdir: expected a path, got none (a shell variable that"),
        ("--start-from=", "Error parsing --start-from: expected a path, got none"),
        ("--data-dir= ", "Error parsing --data-dir: expected a path, got none"),
    ],
)
def test_what_cannot_be_parsed_ends_in_one_line_with_a_hint(capsys, flag, said):
    error = refused(simclr.main, [flag], capsys)
    assert error.startswith(f"error: {said}")
    assert error.endswith(" (--help lists all options)\n")


def test_images_that_an_encoder_cannot_take_leave_no_run_behind(capsys, tmp_path):
    flags = ["--encoder=vit", "--image-size=10", f"--workdir={tmp_path}"]
    assert "10x10 pixels cannot be cut into patches of 4" in refused(simclr.main, flags, capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("side", "size", "fit"),
    [(8, 16, "resnet50, vit"), (30, 32, "resnet50"), (4, 16, "resnet50, vit")],
)
def test_images_that_patches_of_16_do_not_tile_are_told_what_does(side, size, fit):
    with pytest.raises(ValueError, match=f"--encoder=vit_b16: {side}x{side} pixels") as told:
        check_tiles("vit_b16", (side, side, 3))
    assert f"choose --image-size={size} or another multiple of 16" in str(told.value)
    assert str(told.value).endswith(f"layout_convnet, resnet18, {fit}")


def test_images_that_patches_tile_are_taken():
    for name in (*get_args(Encoder), "TheUsersOwn"):
        check_tiles(name, (32, 48, 3))


def test_help_documents_every_flag(capsys):
    with pytest.raises(SystemExit) as ended:
        simclr.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    fields = flat(Images(), simclr.Loss(), Training(), Machine())
    for name in fields:
        assert options.flag(name) in text
    assert "None" not in text


@pytest.mark.parametrize(
    ("dataset", "examples", "side"),
    [("digits", 1259, 8), ("cifar10", 5000, 32), ("x", 256, 64), ("x", 9000, 224)],
)
def test_help_states_the_recipes(dataset, examples, side):
    config = simclr.SimCLR(images=Images(dataset))
    resolved, _ = simclr.resolve(config, examples, side)
    training = resolved.training
    words = f"{resolved.images.encoder}, {training.epochs} epochs of {training.batch_size:,}, "
    words += f"{training.optimizer} at {training.learning_rate:g}, "
    words += f"temperature {resolved.loss.temperature}"
    told = " ".join((simclr.SimCLR.__doc__ or "").replace("1.0,", "1,").split())
    told = told.replace(" images a step", "")
    assert words in told


def test_photographs_get_the_rates_of_the_papers():
    def rates(*flags):
        config = options.parse(simclr.SimCLR, program="simclr", arguments=["--dataset=x", *flags])
        resolved, _ = simclr.resolve(config, 1_000_000, 224)
        training = resolved.training
        return training.optimizer, training.learning_rate, training.weight_decay

    assert rates("--batch-size=4096") == ("lars", pytest.approx(4.8), 1e-6)
    vit = ("adamw", pytest.approx(2.4e-3), 0.1)
    assert rates("--encoder=vit_b16", "--batch-size=4096") == vit
    # Of another optimizer than the recipe's, the usual rates.
    assert rates("--optimizer=sgd", "--batch-size=512") == ("sgd", pytest.approx(0.6), 1e-4)


def test_a_recipe_fills_what_was_left_open():
    config = simclr.SimCLR(training=Training(epochs=3, optimizer="sgd"))
    resolved, recipe = simclr.resolve(config, 1259, 8)
    assert recipe is DIGITS
    assert resolved.training.epochs == 3
    assert resolved.training.learning_rate == 0.3
    assert resolved.training.warmup_epochs == pytest.approx(0.3)  # a tenth, as in the long run
    open_fields = {"clip_norm", "ema", "start_from", "data_dir", "image_size"}
    open_fields |= {"crop_scale", "train_share", "validation_dataset"}
    fields = flat(resolved.images, resolved.loss, resolved.training)
    assert {name for name, value in fields.items() if value is None} == open_fields


def test_cifar10_gets_the_published_recipe():
    resolved, recipe = simclr.resolve(simclr.SimCLR(images=Images("cifar10")), 45_000, 32)
    training = resolved.training
    assert (resolved.images.encoder, training.batch_size, training.epochs) == ("resnet18", 512, 200)
    assert (training.optimizer, training.learning_rate) == ("lars", 1.0)
    assert resolved.loss.temperature == 0.5
    assert recipe.transform is simclr_transform


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 256), (3, 255), (7, 252), (300, 300)])
def test_a_default_batch_is_one_that_the_devices_share(devices, batch_size):
    def resolve(config):
        return simclr.resolve(config, 1259, 8)[0]

    config = simclr.SimCLR(images=Images("digits"))
    resolved = share_batch(config, resolve, devices=devices)
    assert resolved.training.batch_size == batch_size
    assert make_plan(resolved.training, examples=1259, devices=devices)


def test_the_default_rate_is_that_of_the_shared_batch():
    def resolve(config):
        return simclr.resolve(config, 5000, 32)[0]

    config = simclr.SimCLR(images=Images("cifar10"))
    resolved = share_batch(config, resolve, devices=3)
    assert resolved.training.batch_size == 510  # of 512
    assert resolved.training.learning_rate == pytest.approx(510 / 512)


def test_a_given_batch_is_kept_and_its_neighbours_are_told():
    training = Training(batch_size=256, epochs=1, warmup_epochs=0)
    config = simclr.SimCLR(training=training)
    assert share_batch(config, lambda c: c, devices=3) is config
    with pytest.raises(ValueError, match="of the 3 devices, at least 2; choose 255 or 258"):
        make_plan(training, examples=1259, devices=3)
    with pytest.raises(ValueError, match=r"at least 2; choose 255$"):
        make_plan(training, examples=257, devices=3)


def test_the_plan_counts_in_steps():
    training = Training(batch_size=256, epochs=10, warmup_epochs=0.5)
    plan = make_plan(training, examples=1259, devices=4)
    assert (plan.steps_per_epoch, plan.steps, plan.warmup_steps) == (4, 40, 2)
    short = make_plan(Training(batch_size=256, epochs=1, warmup_epochs=9), examples=300, devices=1)
    assert (short.steps, short.warmup_steps) == (1, 0)


def test_ranges_let_missing_values_pass():
    check_training(Training(), Machine())
    with pytest.raises(ValueError, match="--clip-norm=nan"):
        check_training(Training(clip_norm=math.nan), Machine())


@pytest.mark.parametrize("side", [4, 8, 16, 30, 48, 50, 61, 64, 96, 224])
def test_a_name_of_an_encoder_is_one_network(side):
    names = get_args(Encoder)
    networks = {name: make_encoder(name, side=side) for name in names}
    for name in ("convnet", "patch_convnet", "layout_convnet"):
        assert isinstance(networks[name], encoders.ConvNet)
    assert networks["convnet"] == encoders.ConvNet()
    assert networks["layout_convnet"].layout
    assert not networks["patch_convnet"].layout
    objective = make_objective("clip", None)
    for name, network in networks.items():  # the same in the experiments that share the names
        settings = {"vocabulary": 300, "dim": 8, "precision": "f32"}
        pair = make_model(name, objective, side=side, **settings)
        assert pair.image.encoder == network.clone(axis_name="batch")


@pytest.mark.parametrize("side", [8, 16, 30, 48, 50, 61, 64, 96, 224])
def test_the_map_of_the_encoder_of_few_photos_has_about_as_many_places_at_any_size(side):
    assert 8 <= side / make_encoder("patch_convnet", side=side).patch < 17


def test_at_64_pixels_it_costs_a_tenth_of_one_that_looks_at_every_pixel():
    network = make_encoder(FEW_PHOTOS.encoder, side=64)
    assert _multiplications(network, 64) < 0.1 * _multiplications(encoders.ConvNet(), 64)


def _multiplications(network, side) -> float:
    """Of one image, by the program."""
    images = jnp.zeros((1, side, side, 3))
    variables = jax.eval_shape(partial(network.init, train=False), jax.random.key(0), images)
    return (
        jax.jit(partial(network.apply, train=False))
        .lower(variables, images)
        .cost_analysis()["flops"]
    )
