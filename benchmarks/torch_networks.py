"""The encoders of `benchmarks/step.py` again, in torch: same layers, same parameter count."""

import itertools
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Module:
    """Returns a convolution without bias and its batch norm."""
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = conv(inputs, outputs, 3, stride)
        self.second = conv(outputs, outputs, 3)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else conv(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(functional.relu(self.first(x)))
        return functional.relu(self.shortcut(x) + y)


class Mean(nn.Module):
    """The mean over a map."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def convnet(widths: Sequence[int] = (32, 64, 128), inputs: int = 1) -> nn.Module:
    """Returns `jaxcon.encoders.ConvNet` with its defaults, for images of `inputs` channels."""
    layers: list[nn.Module] = [conv(inputs, widths[0], 3), nn.ReLU(), Block(widths[0], widths[0])]
    for narrow, wide in itertools.pairwise(widths):
        layers += [nn.AvgPool2d(2), Block(narrow, wide)]
    return nn.Sequential(*layers, Mean())


def resnet18(width: int = 64) -> nn.Module:
    """Returns `jaxcon.encoders.resnet18` with the stem for images of up to 64 pixels."""
    layers: list[nn.Module] = [conv(3, width, 3), nn.ReLU()]
    inputs = width
    for stage in range(4):
        outputs = width * 2**stage
        layers += [Block(inputs, outputs, 2 if stage else 1), Block(outputs, outputs)]
        inputs = outputs
    return nn.Sequential(*layers, Mean())


def head(features: int, hidden: int = 256, dim: int = 128) -> nn.Module:
    """Returns `jaxcon.encoders.ProjectionHead` with its defaults."""
    first = nn.Linear(features, hidden, bias=False)
    return nn.Sequential(first, nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, dim))
