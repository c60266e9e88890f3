"""The image encoders that a flag can name: one list that defines flags, help and checks."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from experiments.running.options import of_recipe
from jaxcon import encoders


class Entry(NamedTuple):
    """An encoder that a flag can name.

    Attributes:
      make: called as `make(**settings)`, with `axis_name` and `dtype`.
      patched: whether `make` also takes `patch`, which follows from the side of the images.
      slow_on_cpu: whether at 64 pixels on 2 cores a step takes many times as long as with
        patch_convnet.
    """

    make: Callable[..., Any]
    patched: bool = False
    slow_on_cpu: bool = False


_layout = functools.partial(encoders.ConvNet, narrow=(32, 32, 64), layout=True)

# One name, one network: a run's folder has to tell what was trained in it.
ENCODERS = {
    "mlp": Entry(encoders.MLP),
    "convnet": Entry(encoders.ConvNet, slow_on_cpu=True),
    "patch_convnet": Entry(encoders.ConvNet, patched=True),
    "layout_convnet": Entry(_layout, patched=True),
    "resnet18": Entry(encoders.resnet18, slow_on_cpu=True),
    "resnet50": Entry(encoders.resnet50, slow_on_cpu=True),
    "vit": Entry(encoders.ViT, slow_on_cpu=True),
}
if TYPE_CHECKING:
    Encoder = str
else:
    Encoder = Literal[tuple(ENCODERS)]
EncoderOfRecipe = Annotated[
    Encoder | None,
    of_recipe(  # pyright: ignore[reportCallIssue]
        metavar=f"{{{','.join(ENCODERS)}}}",
        constructor=Encoder,
    ),
]


def make_encoder(name: Encoder, *, side: int, **settings: Any) -> Any:
    """Returns the encoder that the flag names, for images of `side` pixels."""
    entry = ENCODERS[name]
    if entry.patched:
        settings["patch"] = max(side // 16, min(side // 8, 4), 1)  # maps of 8 to 16 places per side
    return entry.make(**settings)


def is_slow_on_cpu(name: str) -> bool:
    """Returns whether an encoder is known to be slow on a CPU; a user's own is not."""
    return name in ENCODERS and ENCODERS[name].slow_on_cpu
