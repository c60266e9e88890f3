"""Networks are written down and built again: the same settings, the same parameters."""

import json
from typing import get_args

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.pairs.model import make_model
from experiments.pairs.objectives import make_objective
from experiments.running.encoders import Encoder, make_encoder
from jaxcon.encoders import MLP, ConvNet, TextTransformer, resnet18
from jaxcon.encoders.describe import build, describe
from jaxcon.encoders.dual import Side

ENCODERS = get_args(Encoder)


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_comes_back(name, dtype):
    encoder = make_encoder(name, side=16, dtype=dtype)
    again = build(json.loads(json.dumps(describe(encoder))))
    assert again == encoder


@pytest.mark.parametrize("loss", ["clip", "gaussian"])
@pytest.mark.parametrize("name", ENCODERS)
def test_both_sides_of_a_dual_encoder_come_back(name, loss):
    model = make_model(
        name,
        make_objective(loss, None),
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


def test_a_network_is_its_settings_not_its_name():
    """One convnet takes forty times as long as another."""
    described = [describe(make_encoder(name, side=48)) for name in ENCODERS]
    assert len({json.dumps(description) for description in described}) == len(ENCODERS)
    sides = [describe(make_encoder("patch_convnet", side=side)) for side in (16, 64)]
    assert [description["patch"] for description in sides] == [2, 4]


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
