"""Weight decay by name and role: every parameter of every encoder, and of other modules."""

from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.images.model import Model
from experiments.pairs.model import DualEncoder
from jaxcon import encoders
from jaxcon.encoders.dual import Side
from jaxcon.training.decay import decay_mask
from jaxcon.training.optimizers import lars
from tests.encoders.modules import IMAGES, MODULES, TOKENS
from tests.training.toy import BUILDS

# A batch norm of ours holds Flax's.
NORM = "BatchNorm_0/scale BatchNorm_0/bias"


def within(module, names):
    return " ".join(f"{module}/{name}" for name in names.split())


TRANSFORMER = {
    "decayed": within(
        "TransformerBlock_0",
        within("MultiHeadDotProductAttention_0", "query/kernel key/kernel value/kernel out/kernel")
        + " Dense_0/kernel Dense_1/kernel",
    ),
    "left": within(
        "TransformerBlock_0",
        within("MultiHeadDotProductAttention_0", "query/bias key/bias value/bias out/bias")
        + " Dense_0/bias Dense_1/bias LayerNorm_0/scale LayerNorm_0/bias"
        + " LayerNorm_1/scale LayerNorm_1/bias",
    )
    + " LayerNorm_0/scale LayerNorm_0/bias",
}


def norms(*modules):
    return " ".join(within(module, NORM) for module in modules)


DECAYED = {
    "mlp": "Dense_0/kernel",
    "convnet": "PatchConv_0/kernel ConvBlock_0/PatchConv_0/kernel ConvBlock_0/PatchConv_1/kernel "
    + within("ConvBlock_1", "PatchConv_0/kernel PatchConv_1/kernel PatchConv_2/kernel"),
    "resnet basic": "Conv_0/kernel BasicBlock_0/Conv_0/kernel BasicBlock_0/Conv_1/kernel",
    "resnet bottleneck": "Conv_0/kernel "
    + within("BottleneckBlock_0", "Conv_0/kernel Conv_1/kernel Conv_2/kernel Conv_3/kernel"),
    "vit": "Conv_0/kernel " + TRANSFORMER["decayed"],
    "text": "Embed_0/embedding " + TRANSFORMER["decayed"],
    "head": "Dense_0/kernel Dense_1/kernel",
    "side": "encoder/Dense_0/kernel Dense_0/kernel Dense_1/kernel",
}
LEFT = {
    "mlp": norms("BatchNorm_0"),
    "convnet": norms("BatchNorm_0", "ConvBlock_0/BatchNorm_0", "ConvBlock_0/BatchNorm_1")
    + " "
    + within("ConvBlock_1", norms("BatchNorm_0", "BatchNorm_1", "BatchNorm_2")),
    "resnet basic": norms("BatchNorm_0", "BasicBlock_0/BatchNorm_0", "BasicBlock_0/BatchNorm_1"),
    "resnet bottleneck": norms("BatchNorm_0")
    + " "
    + within(
        "BottleneckBlock_0", norms("BatchNorm_0", "BatchNorm_1", "BatchNorm_2", "BatchNorm_3")
    ),
    "vit": "Conv_0/bias " + TRANSFORMER["left"],
    "text": "positions " + TRANSFORMER["left"],
    "head": norms("BatchNorm_0") + " Dense_1/bias",
    "side": norms("encoder/BatchNorm_0")
    + " LayerNorm_0/scale LayerNorm_0/bias Dense_0/bias Dense_1/bias",
}


def by_path(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


@cache
def shapes(name):
    module, inputs = MODULES[name]
    init = partial(module.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), inputs)["params"]


@pytest.mark.parametrize("name", MODULES)
def test_every_parameter_of_every_encoder_has_its_decision(name):
    expected = dict.fromkeys(DECAYED[name].split(), True)
    expected |= dict.fromkeys(LEFT[name].split(), False)
    assert by_path(decay_mask(shapes(name))) == expected


def test_every_encoder_is_in_the_list():
    listed = {type(module).__name__ for module, _ in MODULES.values()}
    made_of_listed = {"resnet18", "resnet50", "vit_s16", "vit_b16", "vit_l16", "text_base"}
    assert set(encoders.__all__) - made_of_listed - listed == {"Temperature"}
    variables = encoders.Temperature().init(jax.random.key(0))
    assert by_path(decay_mask(variables["params"])) == {"log_temperature": False}


def test_every_parameter_of_what_the_experiments_train_has_its_decision():
    """Encoder and head; and two sides with all scalars that a loss learns."""
    images = MODULES["mlp"][0], MODULES["head"][0]
    sides = MODULES["side"][0], Side(MODULES["text"][0], dim=3)
    scalars = dict.fromkeys(("temperature", "bias", "scale", "shift"), 1.0)
    key, linear = jax.random.key(0), "Dense_0/kernel"
    model = partial(Model(*images).init, train=False)
    expected = within("encoder", DECAYED["mlp"]) + " " + within("head", DECAYED["head"])
    decayed = {k for k, v in by_path(decay_mask(jax.eval_shape(model, key, IMAGES))).items() if v}
    assert decayed == set(within("params", expected).split())
    dual = partial(DualEncoder(*sides, scalars).init, train=False)
    expected = within("image", DECAYED["side"])
    expected += " " + within("text", within("encoder", DECAYED["text"]) + " " + linear)
    found = by_path(decay_mask(jax.eval_shape(dual, key, IMAGES, TOKENS)["params"]))
    assert {name for name, decays in found.items() if decays} == set(expected.split())
    assert {"Temperature_0/log_temperature", "bias", "scale", "shift"} < found.keys()


# Of modules that are not ours: (path, shape, whether it decays).
OTHERS = [
    ("LSTM_0/hf/kernel", (8, 8), True),
    ("Dense_0/kernel", (1, 8), True),  # one input, or one output: still a kernel
    ("Dense_0/kernel", (8, 1), True),
    ("Einsum_0/bias", (2, 4), False),
    ("layers/Dense_0/bias", (6, 8), False),  # of six layers, stacked by nn.scan
    ("layers/LayerNorm_0/scale", (6, 8), False),
    ("layers/LayerScale_0/gamma", (6, 8), False),
    ("layers/Dense_0/kernel", (6, 8, 8), True),
    ("WeightNorm_0/Dense_0/kernel/scale", (6, 8), False),
    ("PReLU_0/negative_slope", (), False),
    ("pos_embedding", (1, 16, 8), False),
    ("posembed_input/pos_embedding", (1, 16, 8), False),
    ("position_embeddings/embedding", (16, 8), False),
    ("wpe/embedding", (16, 8), False),
    ("PositionalEmbedding_0/Embed_0/embedding", (16, 8), False),  # Flax's own name says nothing
    ("ClassEncoder_0/Embed_0/embedding", (16, 8), True),
    ("lora_a", (8, 2), True),  # of nnx.LoRA: two matrices
    ("lora_b", (2, 8), True),
    ("b_q", (2, 4), False),
    ("relative_position_bias_table", (49, 4), False),
    ("relative_attention_bias/embedding", (32, 4), False),
    ("token_embedding/embedding", (300, 8), True),
    ("wte/embedding", (300, 8), True),
    ("cls", (1, 1, 8), False),
    ("cls_token", (1, 1, 8), False),
    ("class_embedding", (8,), False),
    ("register_tokens", (1, 4, 8), False),
    ("mask_token", (1, 8), False),
    ("probe", (1, 1, 8), False),  # one vector, whatever it is called
    ("logit_scale", (), False),
    ("temperatures", (2, 4), False),
    ("prototypes", (10, 8), True),
    ("w", (8, 4), True),
    ("b", (1, 4), False),
    ("b", (2, 4), False),
]


@pytest.mark.parametrize(("path", "shape", "decays"), OTHERS)
def test_parameters_of_other_modules_by_name_and_role(path, shape, decays):
    tree = jnp.zeros(shape)
    for name in reversed(path.split("/")):
        tree = {name: tree}
    assert jax.tree.leaves(decay_mask(tree)) == [decays]


def test_lists_and_boxes_around_a_parameter_hide_no_name():
    params = {
        "bias": [jnp.ones((2, 3)), jnp.ones((2, 3))],
        "layers": ({"kernel": jnp.ones((2, 3))},),
        "tower": {"kernel": nn.Partitioned(jnp.ones((2, 3)), ("a", "b"))},
    }
    assert by_path(decay_mask(params)) == {
        "bias/0": False,
        "bias/1": False,
        "layers/0/kernel": True,
        "tower/kernel/value": True,
    }


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("name", ["vit", "text"])
def test_optimizers_shrink_what_decays_and_nothing_else(name, build):
    """At a gradient of zeros decay alone moves a parameter."""
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes(name))
    optimizer = build(optax.constant_schedule(0.1), weight_decay=0.5)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(optimizer.update)(zeros, optimizer.init(params), params)
    for path, update in by_path(updates).items():
        if path in DECAYED[name].split():
            assert (np.asarray(update) < 0).all(), path
        else:
            assert not np.asarray(update).any(), path


def test_lars_takes_plain_steps_where_nothing_decays():
    """Elsewhere a step is 0.001 of the parameter's norm long, times the rate; momentum starts at 0."""
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 2.0), shapes("vit"))
    gradient = jax.tree.map(lambda leaf: 3.0 * jnp.ones_like(leaf), params)
    optimizer = lars(optax.constant_schedule(0.5), weight_decay=0.0)
    updates, _ = jax.jit(optimizer.update)(gradient, optimizer.init(params), params)
    for path, update in by_path(updates).items():
        step = 0.5 * 3.0
        if path in DECAYED["vit"].split():
            step *= 0.001 * 2.0 / 3.0  # |parameter| / |gradient|
        np.testing.assert_allclose(update, -step, rtol=1e-5, err_msg=path)
