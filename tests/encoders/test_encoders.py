"""What every image encoder and the head promise: shapes, dtypes, global batch statistics."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from jaxcon import encoders
from jaxcon.encoders import convnet
from jaxcon.encoders.layers import PatchConv
from jaxcon.encoders.resnet import BasicBlock, BottleneckBlock, ResNet
from tests.marks import exhaustive_unless

IMAGES = np.random.default_rng(0).uniform(size=(8, 8, 8, 3)).astype(np.float32)

SMALL = {
    "mlp": partial(encoders.MLP, widths=(8, 8)),
    "convnet": partial(encoders.ConvNet, widths=(4, 8)),
    "convnet narrow": partial(encoders.ConvNet, widths=(4, 8), narrow=(2, 4), patch=4, layout=True),
    "resnet basic": partial(ResNet, stages=(1, 1), block=BasicBlock, width=4),
    "resnet bottleneck": partial(ResNet, stages=(1,), block=BottleneckBlock, width=4),
    "vit": partial(encoders.ViT, patch=4, dim=8, depth=1, heads=2),
    "head": partial(encoders.ProjectionHead, hidden=8, dim=4),
}
each = pytest.mark.parametrize("name", SMALL)


def inputs(name):
    return IMAGES.reshape(8, -1)[:, :16] if name == "head" else IMAGES


def start(module, x):
    return jax.jit(partial(module.init, train=False))(jax.random.key(0), x)


def train(module, variables, x):
    return module.apply(variables, x, train=True, mutable=["batch_stats"])


@cache
def reference(name):
    """Variables, and what one training pass on one device makes of them."""
    variables = start(SMALL[name](), inputs(name))
    return variables, *jax.jit(partial(train, SMALL[name]()))(variables, inputs(name))


@pytest.mark.parametrize("name", exhaustive_unless(lambda name: name in ("mlp", "vit"), SMALL))
def test_bf16_computes_in_bf16_and_keeps_float32_outside(name):
    variables, full, _ = reference(name)
    module = SMALL[name](dtype=jnp.bfloat16)
    shapes = jax.eval_shape(partial(start, module), inputs(name))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}
    half, updates = jax.jit(partial(train, module))(variables, inputs(name))
    assert half.dtype == full.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} <= {jnp.dtype(jnp.float32)}
    error = np.abs(half - full).max() / np.abs(full).max()
    assert 1e-5 < error < 0.1


@each
def test_four_devices_give_the_features_and_statistics_of_one(name):
    variables, features, updates = reference(name)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("batch",))
    shard = jax.shard_map(
        partial(train, SMALL[name](axis_name="batch")),
        mesh=mesh,
        in_specs=(P(), P("batch")),
        out_specs=(P("batch"), P()),
    )
    sharded, sharded_updates = jax.jit(shard)(variables, inputs(name))
    np.testing.assert_allclose(sharded, features, rtol=1e-4, atol=1e-5)
    for got, expected in zip(
        jax.tree.leaves(sharded_updates), jax.tree.leaves(updates), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@each
def test_evaluation_rows_do_not_see_each_other(name):
    x = inputs(name)
    apply = jax.jit(partial(SMALL[name]().apply, reference(name)[0], train=False))
    others = np.concatenate([x[:3], 1 - x[3:]])
    alone, together = apply(x), apply(others)
    np.testing.assert_array_equal(alone[:3], together[:3])
    assert np.abs(alone[3:] - together[3:]).max() > 1e-3


@each
def test_double_precision_flows_through(name):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda p: np.asarray(p, np.float64), reference(name)[0])
        x = np.asarray(inputs(name), np.float64)
        features, _ = jax.eval_shape(partial(train, SMALL[name]()), wide, x)
        assert features.dtype == jnp.float64


@pytest.mark.parametrize("size", [1, 3, 5])
def test_patch_conv_is_nn_conv(size):
    images = IMAGES[:2]
    kernel = np.random.default_rng(1).normal(size=(size, size, 3, 6)).astype(np.float32)
    variables = {"params": {"kernel": kernel}}

    def both(images):
        reference = nn.Conv(6, (size, size), use_bias=False).apply(variables, images)
        return PatchConv(6, size=size).apply(variables, images), reference

    ours, reference = jax.jit(both)(images)
    np.testing.assert_allclose(ours, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("build", "dim", "millions"), [(encoders.resnet18, 512, 11.17), (encoders.resnet50, 2048, 23.5)]
)
@pytest.mark.parametrize(("side", "kernel"), [(64, 3), (65, 7)])
def test_resnets_have_the_published_size_and_the_stem_for_the_image(
    build, dim, millions, side, kernel
):
    net = build()
    images = jnp.zeros((2, side, side, 3))
    shapes = jax.eval_shape(partial(net.init, train=False), jax.random.key(0), images)
    count = sum(p.size for p in jax.tree.leaves(shapes["params"]))
    assert count == pytest.approx(millions * 1e6, rel=0.002)
    assert shapes["params"]["Conv_0"]["kernel"].shape == (kernel, kernel, 3, 64)
    features = jax.eval_shape(partial(net.apply, train=False), shapes, images)
    assert features.shape == (2, dim)


@pytest.mark.parametrize("block", [BasicBlock, BottleneckBlock])
def test_a_residual_block_starts_as_its_shortcut(block):
    module = block(2)
    width = 2 if block is BasicBlock else 8
    x = np.abs(np.random.default_rng(1).normal(size=(4, 4, 4, width))).astype(np.float32)
    features, _ = jax.jit(partial(module.init_with_output, train=False))(jax.random.key(0), x)
    np.testing.assert_allclose(features, x, atol=1e-6)


# Published counts are of 224 pixels, with a class token and a learned position for it and each patch.
@pytest.mark.parametrize(
    ("build", "dim", "published"),
    [
        (encoders.vit_s16, 384, 21_665_664),
        (encoders.vit_b16, 768, 85_798_656),
        (encoders.vit_l16, 1024, 303_301_632),
    ],
)
def test_vits_have_the_published_size_but_for_the_class_token_and_the_table(build, dim, published):
    images, patches = jnp.zeros((1, 224, 224, 3)), (224 // 16) ** 2
    shapes = jax.eval_shape(partial(build().init, train=False), jax.random.key(0), images)
    count = sum(p.size for p in jax.tree.leaves(shapes))
    assert count == published - (1 + patches) * dim - dim
    features = jax.eval_shape(partial(build().apply, train=False), shapes, images)
    assert features.shape == (1, dim)
    assert build(heads=1, dtype=jnp.bfloat16) == build().clone(heads=1, dtype=jnp.bfloat16)


def test_vit_knows_where_its_patches_are():
    net = encoders.ViT(patch=4, dim=8, depth=1, heads=2)
    variables = start(net, IMAGES)
    swapped = np.concatenate([IMAGES[:, 4:], IMAGES[:, :4]], axis=1)
    apply = jax.jit(partial(net.apply, variables, train=False))
    assert np.abs(apply(IMAGES) - apply(swapped)).max() > 1e-3


def test_vit_says_which_patches_would_fit():
    with pytest.raises(ValueError, match=r"8x8 pixels cannot be cut into patches of 3.* to 9x9"):
        start(encoders.ViT(patch=3), IMAGES)
    with pytest.raises(ValueError, match="multiple of 4"):
        start(encoders.ViT(dim=10, heads=2), IMAGES)


@pytest.mark.parametrize("shape", [(7, 10), (1, 3), (8, 8)])
def test_a_convnet_takes_images_that_its_patches_do_not_tile(shape):
    """As if their last rows and columns were repeated: written as a loop over the patches."""
    images = np.random.default_rng(0).normal(size=(2, *shape, 3)).astype(np.float32)
    patches = np.asarray(convnet.to_patches(images, 4))
    rows, columns = (-(-side // 4) for side in shape)
    assert patches.shape == (2, rows, columns, 48)
    for i in range(4 * rows):
        for j in range(4 * columns):
            pixel = images[:, min(i, shape[0] - 1), min(j, shape[1] - 1)]
            first = 3 * (4 * (i % 4) + j % 4)
            found = patches[:, i // 4, j // 4, first : first + 3]
            np.testing.assert_array_equal(found, pixel)
