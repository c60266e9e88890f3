"""What convolutions, pools and patches make of sides of any size: written again as loops in NumPy.

The convolution and the pool are PyTorch's formulas: output side `(n + 2 pad - size) // stride + 1`,
rows of zeros around for a convolution and of -inf for a max-pool. ResNets are torchvision's modules,
in its order.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon import encoders
from jaxcon.encoders.convnet import halve
from jaxcon.encoders.resnet import BasicBlock, BottleneckBlock, ResNet

RNG = np.random.default_rng(0)


def windows(x, size, stride, pad, fill):
    """The squares that an output pixel sees: an iterator of ((row, column), [batch, size, size, c])."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=fill)
    for i in range((x.shape[1] - size) // stride + 1):
        for j in range((x.shape[2] - size) // stride + 1):
            rows, columns = i * stride, j * stride
            yield (i, j), x[:, rows : rows + size, columns : columns + size]


def assemble(pixels):
    pixels = dict(pixels)
    height, width = (1 + max(place) for place in zip(*pixels, strict=True))
    return np.stack([np.stack([pixels[i, j] for j in range(width)], 1) for i in range(height)], 1)


def conv(x, kernel, stride=1):
    size = kernel.shape[0]
    seen = windows(x, size, stride, size // 2, 0.0)
    return assemble((place, np.tensordot(w, kernel, axes=3)) for place, w in seen)


def max_pool(x):
    return assemble((place, w.max((1, 2))) for place, w in windows(x, 3, 2, 1, -np.inf))


class Network:
    """A network in float64 and in evaluation, on variables of ours."""

    conv = "Conv"

    def __init__(self, net, variables):
        self.net, self.variables = net, jax.tree.map(np.float64, variables)

    def layer(self, x, scope, number, *, stride=1):
        """A convolution and its norm with running statistics."""
        params, stats = self.variables["params"], self.variables["batch_stats"]
        for name in scope:
            params, stats = params[name], stats[name]
        norm = f"BatchNorm_{number}"
        affine, running = params[norm]["BatchNorm_0"], stats[norm]["BatchNorm_0"]
        x = conv(x, params[f"{self.conv}_{number}"]["kernel"], stride)
        x = (x - running["mean"]) / np.sqrt(running["var"] + 1e-5)
        return x * affine["scale"] + affine["bias"]


class Torchvision(Network):
    """ResNet-18 and -50 without their last layer."""

    def block(self, x, scope, *, stride, layers, last):
        y = x
        for number in range(layers):
            # torchvision's v1.5: of a bottleneck the 3x3, its second, has the stride.
            own = stride if number == (layers == 3) else 1
            y = self.layer(y, scope, number, stride=own)
            y = np.maximum(y, 0) if number < layers - 1 else y
        if stride != 1 or x.shape[-1] != last:
            x = self.layer(x, scope, layers, stride=stride)
        return np.maximum(x + y, 0)

    def __call__(self, images):
        small = max(images.shape[1:3]) <= 64
        x = np.maximum(self.layer(np.float64(images), (), 0, stride=1 if small else 2), 0)
        x = x if small else max_pool(x)
        basic, number = self.net.block is BasicBlock, 0
        for stage, blocks in enumerate(self.net.stages):
            for i in range(blocks):
                name = f"{self.net.block.__name__}_{number}"
                last = self.net.width * 2**stage * (1 if basic else 4)
                stride = 2 if stage and not i else 1
                x = self.block(x, (name,), stride=stride, layers=2 if basic else 3, last=last)
                number += 1
        return x.mean((1, 2))


def random_variables(module, x):
    """Of the module's shapes: kernels that keep the scale, norms whose scales and statistics matter."""
    shapes = jax.eval_shape(partial(module.init, train=False), jax.random.key(0), x)

    def draw(path, leaf):
        if path[-1].key in ("scale", "var"):
            return np.float32(RNG.uniform(0.5, 1.5, leaf.shape))
        fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 4
        return np.float32(RNG.normal(size=leaf.shape) * np.sqrt(2 / fan_in))

    return jax.tree_util.tree_map_with_path(draw, shapes)


SIDES = [(66, 69), (65, 72), (64, 15), (7, 10)]  # the first two above 64: the large stem
SMALL = {
    "basic": partial(ResNet, stages=(1, 1), block=BasicBlock, width=3),
    "bottleneck": partial(ResNet, stages=(1, 1), block=BottleneckBlock, width=2),
}
WHOLE = {
    "resnet18": partial(encoders.resnet18, width=2),
    "resnet50": partial(encoders.resnet50, width=2),
}


def check_resnet(net, side):
    images = np.float32(RNG.normal(size=(2, *side, 3)))
    variables = random_variables(net, images)
    got = jax.jit(partial(net.apply, train=False))(variables, images)
    expected = Torchvision(net, variables)(images)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("side", SIDES, ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_resnets_are_torchvisions(name, side):
    check_resnet(SMALL[name](), side)


@pytest.mark.slow
@pytest.mark.parametrize("side", SIDES, ids=str)
@pytest.mark.parametrize("name", WHOLE)
def test_whole_resnets_are_torchvisions(name, side):
    check_resnet(WHOLE[name](), side)


@pytest.mark.parametrize("block", [BasicBlock, BottleneckBlock])
def test_a_block_with_a_stride_has_its_shortcut_whatever_the_side(block):
    """As torchvision's, whose parameters do not depend on the image."""
    module = block(2, stride=2)
    inputs = (np.zeros((1, side, side, 2 if block is BasicBlock else 8)) for side in (1, 4))
    init = partial(module.init, train=False)
    one, four = (jax.eval_shape(init, jax.random.key(0), x) for x in inputs)
    assert jax.tree.map(jnp.shape, one) == jax.tree.map(jnp.shape, four)


def means_of_squares(x):
    """The mean of what lies in each square of 2x2; at the rim of an odd map that is less."""
    corners = [(i, j) for i in range(0, x.shape[1], 2) for j in range(0, x.shape[2], 2)]
    return assemble(((i // 2, j // 2), x[:, i : i + 2, j : j + 2].mean((1, 2))) for i, j in corners)


class Plain(Network):
    """A ConvNet of one block a stage."""

    conv = "PatchConv"

    def __call__(self, images):
        x = np.maximum(self.layer(np.float64(images), (), 0), 0)
        for stage, width in enumerate(self.net.widths):
            x = means_of_squares(x) if stage else x
            scope = (f"ConvBlock_{stage}",)
            y = self.layer(np.maximum(self.layer(x, scope, 0), 0), scope, 1)
            x = self.layer(x, scope, 2) if x.shape[-1] != width else x
            x = np.maximum(x + y, 0)
        return x.mean((1, 2))


@pytest.mark.parametrize("side", [(7, 7), (8, 8), (9, 14), (1, 3)], ids=str)
def test_a_convnet_by_its_formula_on_odd_and_even_maps(side):
    net = encoders.ConvNet(widths=(3, 4, 4))
    images = np.float32(RNG.normal(size=(2, *side, 3)))
    variables = random_variables(net, images)
    got = jax.jit(partial(net.apply, train=False))(variables, images)
    expected = Plain(net, variables)(images)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("side", [(7, 7), (6, 9), (1, 1)], ids=str)
def test_halving_counts_what_is_there(side):
    x = RNG.normal(size=(2, *side, 3))
    np.testing.assert_allclose(halve(np.float32(x)), means_of_squares(x), rtol=1e-5, atol=1e-6)
    ones = halve(jnp.ones((1, *side, 1), jnp.bfloat16))
    assert ones.dtype == jnp.bfloat16  # one that grew would widen all that follows
    assert (ones == 1).all()
