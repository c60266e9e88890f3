"""Networks are written down and built again: the same settings, the same parameters."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import _images, _pairs
from jaxcon.encoders import MLP, ConvNet, TextTransformer, resnet18
from jaxcon.encoders.describe import build, describe
from jaxcon.encoders.dual import Side

ENCODERS = ("mlp", "convnet", "resnet18", "resnet50", "vit")


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_comes_back(name, dtype):
    encoder = _images.make_encoder(name, dtype=dtype)
    again = build(json.loads(json.dumps(describe(encoder))))
    assert again == encoder


@pytest.mark.parametrize("loss", ["clip", "gaussian"])
@pytest.mark.parametrize("name", ENCODERS)
def test_both_sides_of_a_dual_encoder_come_back(name, loss):
    model = _pairs.make_model(
        name,
        _pairs.make_objective(loss, None),
        side=16,
        vocabulary=300,
        dim=32,
        precision="f32",
    )
    for side in (model.image, model.text):
        description = json.loads(json.dumps(describe(side)))
        again = build(description)
        assert again.log_std == side.log_std
        assert describe(again) == description
        assert "axis_name" not in json.dumps(description)


def test_two_networks_of_one_name_are_told_apart():
    """simclr's convnet and clip's: one takes forty times as long as the other."""
    objective = _pairs.make_objective("clip", None)
    small = _pairs.make_model("convnet", objective, side=48, vocabulary=9, dim=8, precision="f32")
    assert describe(small.image)["encoder"] != describe(_images.make_encoder("convnet"))


def test_defaults_are_written_down_too():
    assert describe(ConvNet()) == {
        "type": "ConvNet",
        "widths": [32, 64, 128],
        "blocks": 1,
        "patch": 1,
        "narrow": None,
        "layout": False,
        "dtype": None,
    }
    assert describe(resnet18())["block"] == "BasicBlock"


def test_numbers_of_numpy_are_numbers():
    text = TextTransformer(vocabulary=np.int64(300))  # pyright: ignore[reportArgumentType]
    assert json.loads(json.dumps(describe(text)))["vocabulary"] == 300


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ({"type": "Transformer"}, "unknown network 'Transformer': expected one of MLP"),
        ({"widths": [8]}, "unknown network None"),
        ({"type": "MLP", "width": [8]}, "MLP has no setting 'width' in this version"),
        ({"type": "ResNet", "block": "Block"}, "unknown block 'Block'"),
        ({"type": "Side", "encoder": {"type": "x"}, "dim": 3}, "unknown network 'x'"),
    ],
)
def test_what_is_unknown_is_named(description, said):
    with pytest.raises(ValueError, match=said):
        build(description)


def test_a_network_of_the_users_own_is_refused():
    class Mine(MLP):
        pass

    with pytest.raises(TypeError, match=r"expected one of MLP, .*, got Mine"):
        describe(Mine())
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        describe(Side(MLP(widths=(lambda: 3,)), dim=3))  # pyright: ignore[reportArgumentType]
