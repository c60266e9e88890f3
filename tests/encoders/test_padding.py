"""What lies beyond the rim of an image: pools and strided convolutions against loops over pixels."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon.encoders import ConvNet
from jaxcon.encoders.convnet import halved
from jaxcon.encoders.resnet import BasicBlock, BottleneckBlock, ResNet

RNG = np.random.default_rng(0)


def patches(x, size, stride, fill):
    """PyTorch's windows, padded on both sides: [batch, rows, columns, size^2, channels]."""
    edge = size // 2
    x = np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)), constant_values=fill)
    rows, columns = ((n - size) // stride + 1 for n in x.shape[1:3])
    windows = [
        x[:, i * stride : i * stride + size, j * stride : j * stride + size]
        for i in range(rows)
        for j in range(columns)
    ]
    return np.stack(windows, 1).reshape(len(x), rows, columns, size * size, x.shape[-1])


def conv(x, params, name, stride=1):
    kernel = np.asarray(params[name]["kernel"], np.float64)
    size, _, inputs, outputs = kernel.shape
    windows = patches(x, size, stride, 0)
    return np.einsum("brcki,kio->brco", windows, kernel.reshape(-1, inputs, outputs))


def relu(x):
    return np.maximum(x, 0)


def basic(x, params, stride):
    y = conv(relu(conv(x, params, "Conv_0", stride)), params, "Conv_1")
    return relu(y + (conv(x, params, "Conv_2", stride) if "Conv_2" in params else x))


def bottleneck(x, params, stride):
    y = relu(conv(relu(conv(x, params, "Conv_0")), params, "Conv_1", stride))
    return relu(conv(y, params, "Conv_2") + conv(x, params, "Conv_3", stride))


def without_norms(module, images):
    """Features and parameters of the module with batch norms that change nothing."""
    start = jax.jit(partial(module.init, train=False))
    variables = start(jax.random.key(1), images)
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            jnp.ones_like(leaf)
            if path[-1].key == "scale"
            else leaf - 1e-5
            if path[-1].key == "var"
            else leaf
        ),
        variables,
    )
    return jax.jit(partial(module.apply, train=False))(variables, images), variables["params"]


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize(("block", "loop"), [(BasicBlock, basic), (BottleneckBlock, bottleneck)])
def test_a_block_at_stride_2_pads_as_pytorch(block, loop, side):
    x = RNG.normal(size=(2, side, side + 2, 3)).astype(np.float32)
    features, params = without_norms(block(4, stride=2), x)
    expected = loop(x, params, 2)
    assert features.shape == expected.shape
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", [66, 71])
def test_a_resnet_of_photographs_pads_as_pytorch(side):
    """7x7 at stride 2, max-pool of 3x3 at stride 2 (of negative maps too), a stage at stride 2."""
    images = RNG.normal(size=(1, side, side, 3)).astype(np.float32)
    net = ResNet(stages=(1, 1), block=BasicBlock, width=2)
    features, params = without_norms(net, images)
    x = relu(conv(images, params, "Conv_0", 2))
    x = patches(x, 3, 2, -np.inf).max(axis=3)
    x = basic(basic(x, params["BasicBlock_0"], 1), params["BasicBlock_1"], 2)
    np.testing.assert_allclose(features, x.mean((1, 2)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(7, 7), (8, 5), (1, 3)])
def test_an_average_pool_counts_what_is_there(shape):
    x = RNG.normal(size=(2, *shape, 3)).astype(np.float32)
    rows, columns = (-(-side // 2) for side in shape)
    expected = [
        [x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((1, 2)) for j in range(columns)]
        for i in range(rows)
    ]
    np.testing.assert_allclose(halved(x), np.moveaxis(expected, 2, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side", [28, 30])
def test_a_convnet_of_an_even_surface_is_even_whatever_its_size(side):
    """Patches and pools: with kernels of 1x1 alone nothing looks beyond the rim."""
    net = ConvNet(widths=(2, 2, 2), blocks=0, patch=4)
    images = np.ones((1, side, side, 3), np.float32)
    variables = jax.jit(partial(net.init, train=False))(jax.random.key(0), images)
    kernel = np.zeros((3, 3, 48, 2), np.float32)
    kernel[1, 1] = 0.1
    params = {**variables["params"], "PatchConv_0": {"kernel": kernel}}
    features = net.apply({**variables, "params": params}, images, train=False)
    np.testing.assert_allclose(features, 48 * 0.1 / np.sqrt(1 + 1e-5), rtol=1e-5)
