"""The encoders that a flag can name: a list for images and one for texts define flags, help, checks."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import tyro

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


class TextEntry(NamedTuple):
    """A text encoder that a flag can name.

    Attributes:
      make: called as `make(vocabulary, **settings)`, with `axis_name` and `dtype`.
      context: how many tokens of a text it reads, unless the user says otherwise.
    """

    make: Callable[..., Any]
    context: int


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
    "vit_s16": Entry(encoders.vit_s16, slow_on_cpu=True),
    "vit_b16": Entry(encoders.vit_b16, slow_on_cpu=True),
    "vit_l16": Entry(encoders.vit_l16, slow_on_cpu=True),
}
TEXT_ENCODERS = {
    "small": TextEntry(functools.partial(encoders.TextTransformer, dim=64, depth=1, heads=2), 64),
    "base": TextEntry(encoders.text_base, 77),
}
if TYPE_CHECKING:
    Encoder = TextEncoder = str
else:
    Encoder = Literal[tuple(ENCODERS)]
    TextEncoder = Literal[tuple(TEXT_ENCODERS)]
EncoderOfRecipe = Annotated[
    Encoder | None,
    of_recipe(  # pyright: ignore[reportCallIssue]
        metavar=f"{{{','.join(ENCODERS)}}}",
        constructor=Encoder,
    ),
]
# None: a page passes in its own.
OptionalTextEncoder = Annotated[
    TextEncoder | None,
    tyro.conf.arg(  # pyright: ignore[reportCallIssue]
        metavar=f"{{{','.join(TEXT_ENCODERS)}}}",
        constructor=TextEncoder,
    ),
]


def make_encoder(name: Encoder, *, side: int, **settings: Any) -> Any:
    """Returns the encoder that the flag names, for images of `side` pixels."""
    entry = ENCODERS[name]
    if entry.patched:
        settings["patch"] = max(side // 16, min(side // 8, 4), 1)  # maps of 8 to 16 places per side
    return entry.make(**settings)


def make_text_encoder(name: TextEncoder, vocabulary: int, **settings: Any) -> Any:
    """Returns the text encoder that the flag names."""
    return TEXT_ENCODERS[name].make(vocabulary, **settings)


def default_context(name: str | None) -> int:
    """Returns how many tokens of a caption a text encoder reads by default; as small, a user's own.

    Example:
      >>> default_context("base"), default_context(None)
      (77, 64)
    """
    return TEXT_ENCODERS.get(name or "", TEXT_ENCODERS["small"]).context


def check_tiles(name: str, shape: Sequence[int]) -> None:
    """Raises a ValueError for images that the patches of the flag's encoder do not tile.

    Example:
      >>> check_tiles("vit_b16", (30, 30, 3))
      Traceback (most recent call last):
      ValueError: --encoder=vit_b16: 30x30 pixels cannot be cut into patches of 16; ...

    Args:
      name: value of the flag; a user's own encoder checks its images itself.
      shape: (height, width, channels) of the images.
    """
    if (patch := _tile(name, shape)) == 1:
        return
    side = max(1, round(max(shape[:2]) / patch)) * patch
    fit = [other for other in ENCODERS if _tile(other, shape) == 1]
    raise ValueError(
        f"--encoder={name}: {shape[0]}x{shape[1]} pixels cannot be cut into patches of {patch}; choose "
        f"--image-size={side} or another multiple of {patch}, or an encoder for images as they are: "
        f"{', '.join(fit)}"
    )


def _tile(name: str, shape: Sequence[int]) -> int:
    """Returns the patch by which an encoder cannot divide images, or 1 if it takes them."""
    network = ENCODERS[name].make() if name in ENCODERS else None
    patch = network.patch if isinstance(network, encoders.ViT) else 1
    return patch if shape[0] % patch or shape[1] % patch else 1


def is_slow_on_cpu(name: str) -> bool:
    """Returns whether an encoder is known to be slow on a CPU; a user's own is not."""
    return name in ENCODERS and ENCODERS[name].slow_on_cpu
