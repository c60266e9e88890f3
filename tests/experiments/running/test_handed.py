"""What a user's page hands over is told at once where it cannot be used."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.images.your_own import pretrain
from experiments.running.handed import check_features, check_module, check_value, gathered, level
from experiments.running.own import named
from jaxcon.losses import clip_loss
from jaxcon.training.devices import make_mesh


def entropy(z1, z2, scale=1.0):
    """Of a library that knows no devices: pairs by rows alone."""
    return -jax.nn.log_softmax(scale * z1 @ z2.T).diagonal().mean()


def test_a_gathered_loss_has_value_and_gradient_of_one_device_on_four():
    z1, z2 = np.random.default_rng(0).normal(size=(2, 8, 3)).astype(np.float32)
    loss = gathered(entropy)
    mapped = jax.shard_map(
        lambda *rows: jax.value_and_grad(lambda rows: loss(*rows, axis_name="batch", scale=2.0))(
            rows
        ),
        mesh=make_mesh(jax.devices()[:4]),
        in_specs=jax.P("batch"),
        out_specs=(jax.P(), jax.P("batch")),
    )
    alone = jax.jit(jax.value_and_grad(lambda rows: entropy(*rows, scale=2.0)))((z1, z2))
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5), jax.jit(mapped)(z1, z2), alone
    )


def test_a_setting_that_is_a_function_is_named_alike_in_every_process():
    assert named(functools.partial(gathered(entropy), scale=2.0)) == (
        "experiments.running.handed.over_all_rows(the user's own entropy, scale=2.0)"
    )
    assert named(gathered(clip_loss)).endswith("over_all_rows(jaxcon.losses.softmax.clip_loss)")


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda z1, z2, *, axis_name: ((z1 - z2) ** 2).mean(), "may differ from device to device"),
        (lambda z1, z2, *, axis_name: ((z1 - z2) ** 2).mean(axis=1), "got an array of shape (4,)"),
        (gathered(lambda z1, z2: (z1 - z2).sum(axis=0)), "got an array of shape (3,)"),
    ],
)
def test_a_loss_that_is_not_one_number_on_all_devices_is_told(loss, said):
    with pytest.raises(ValueError, match=rf"^loss: .*{re.escape(said)}"):
        check_value(loss, (4, 3))


def test_what_a_loss_raises_is_raised():
    def strict(z1, z2, *, axis_name):
        raise ValueError("expected more")

    with pytest.raises(ValueError, match=r"^expected more"):
        level(strict, 1.0, (4, 3))


def test_chance_is_that_of_zeros_at_the_first_values_of_what_is_learned():
    def loss(z1, z2, *, axis_name, bias):
        return bias + jnp.zeros(())

    assert level(loss, None, (4, 3), bias=0.5) == 0.5
    assert level(loss, 0.7, (4, 3), bias=0.5) == 0.7
    assert level(clip_loss, None, (4, 3), temperature=0.1) == pytest.approx(np.log(4))


class Small(nn.Module):
    maps: bool = False

    @nn.compact
    def __call__(self, images, *, train):
        return nn.Conv(2, (3, 3))(images) if self.maps else images.mean(axis=(1, 2))


class Untrained(nn.Module):
    def __call__(self, images):
        return images


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Small, r"expected a Flax module, such as Small\(\.\.\.\), got the class Small"),
        (3, "expected a Flax module, got 3"),
        (
            Untrained(),
            r"expected a network that can be called as Untrained\(\.\.\.\)\(inputs, train=",
        ),
    ],
)
def test_an_encoder_that_is_none_is_told_before_anything_else(module, said):
    with pytest.raises(TypeError, match=f"^mine: {said}"):
        check_module("mine", module)
    with pytest.raises(TypeError, match=f"^encoder: {said}"):
        pretrain("toy", loss=clip_loss, encoder=module, arguments=["--epochs=none"])


def test_an_encoder_of_maps_is_told():
    images = jnp.zeros((2, 4, 4, 1))
    check_features("mine", Small(), images)
    with pytest.raises(
        ValueError, match=r"^mine: expected features \[batch, width\], got \[2, 4, "
    ):
        check_features("mine", Small(maps=True), images)
