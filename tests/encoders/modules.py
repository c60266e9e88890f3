"""Every encoder, head and side, small, each with inputs: for tests that ask something of all."""

import numpy as np

from jaxcon import encoders
from jaxcon.encoders.dual import Side
from jaxcon.encoders.resnet import BasicBlock, BottleneckBlock, ResNet

IMAGES, TOKENS = np.ones((2, 8, 8, 3), np.float32), np.ones((2, 3), np.int32)

MODULES = {
    "mlp": (encoders.MLP(widths=(4,)), IMAGES),
    "convnet": (encoders.ConvNet(widths=(4, 8)), IMAGES),
    "resnet basic": (ResNet(stages=(1,), block=BasicBlock, width=4), IMAGES),
    "resnet bottleneck": (ResNet(stages=(1,), block=BottleneckBlock, width=4), IMAGES),
    "vit": (encoders.ViT(patch=4, dim=8, depth=1, heads=2), IMAGES),
    "text": (encoders.TextTransformer(vocabulary=9, dim=8, depth=1, heads=2), TOKENS),
    "head": (encoders.ProjectionHead(hidden=8, dim=4), IMAGES[:, 0, 0]),
    "side": (Side(encoders.MLP(widths=(4,)), dim=3, log_std=0.0), IMAGES),
}
