"""The image encoders that a flag can name."""

import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

from experiments.running.options import of_recipe
from jaxcon import encoders

# One name, one network: a run's folder is to say what was trained in it.
Encoder = Literal[
    "mlp", "convnet", "patch_convnet", "layout_convnet", "resnet18", "resnet50", "vit"
]
EncoderOfRecipe = Annotated[
    Encoder | None,
    of_recipe(  # pyright: ignore[reportCallIssue]
        metavar=f"{{{','.join(get_args(Encoder))}}}",
        constructor=Encoder,  # pyright: ignore[reportArgumentType]
    ),
]


def make_encoder(name: Encoder, *, side: int, **settings: Any) -> Any:
    """Return the encoder that the flag names, for images of `side` pixels."""
    patch = max(side // 16, min(side // 8, 4), 1)  # maps of 8 to 16 places a side
    constructors: dict[str, Callable[..., Any]] = {
        "mlp": encoders.MLP,
        "convnet": encoders.ConvNet,
        "patch_convnet": functools.partial(encoders.ConvNet, patch=patch),
        "layout_convnet": functools.partial(
            encoders.ConvNet, patch=patch, narrow=(32, 32, 64), layout=True
        ),
        "resnet18": encoders.resnet18,
        "resnet50": encoders.resnet50,
        "vit": encoders.ViT,
    }
    return constructors[name](**settings)
