"""Pre-training with one's own loss, encoder, views or images: what `docs/your_own.md` shows."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from experiments.images.recipes import Images, Recipe, recipe_for
from experiments.images.two_views import (
    Method,
    Objective,
    check_options,
    fill_in,
    load_images,
    loss_of_zeros,
    run,
)
from experiments.running.options import Machine, Training, parse
from experiments.running.own import named
from experiments.running.process import quiet_libraries
from jaxcon.augment import Transform
from jaxcon.data.splits import Dataset


@dataclasses.dataclass(frozen=True)
class Loss:
    """Without options: the loss is handed over with all of its settings."""


@dataclasses.dataclass(frozen=True)
class YourOwn:
    """Pre-train with what your own page hands over, evaluate frozen features, write a report."""

    images: Images = dataclasses.field(default_factory=Images)
    loss: Loss = dataclasses.field(default_factory=Loss)
    training: Training = dataclasses.field(default_factory=Training)
    machine: Machine = dataclasses.field(default_factory=Machine)


def pretrain(
    name: str,
    *,
    loss: Callable[..., jax.Array],
    encoder: nn.Module | None = None,
    transform: Transform | None = None,
    dataset: Dataset | None = None,
    chance: float | None = None,
    temperature: float = 0.1,
    arguments: Sequence[str] | None = None,
) -> None:
    """Run an experiment on two views of an image: train or resume, evaluate, write the report.

    Args:
      name: of the method, for config.json, the page and the folder in `runs`.
      loss: `(z1, z2, *, axis_name) -> scalar` of embeddings `[batch, dim]`, a row and the same row
          of the other a pair; over the rows of all devices.
      encoder: `encoder(images, train=...)` from float `[batch, height, width, channels]` in [0, 1]
          to features `[batch, width]`. None: the one of `--encoder`.
      transform: from a key and an image to a view. None: the one that suits the dataset.
      dataset: images in three splits. None: the one of `--dataset`.
      chance: loss of embeddings that tell nothing, above 0. None: its value for zeros.
      temperature: decides only what the collapse check says of a loss.
      arguments: of the command line. None: those of the process.
    """
    try:
        inspect.signature(loss).bind(None, None, axis_name=None)
    except TypeError as error:
        raise TypeError(
            f"loss: expected a function (z1, z2, *, axis_name), got {getattr(loss, '__name__', loss)} "
            f"({error}); docs/your_own.md shows what to do with axis_name"
        ) from None
    quiet_libraries()
    config = parse(YourOwn, program=None, arguments=arguments)
    handed = {"loss": loss, "encoder": encoder, "transform": transform}

    def check(options: YourOwn) -> None:
        check_options(options)
        given = {"dataset": dataset, "encoder": encoder}
        for flag, own in given.items():
            typed = getattr(config.images, flag)
            if own is not None and typed != getattr(Images(), flag):
                raise ValueError(f"--{flag}={typed}: the page hands over its own; leave it out")

    def resolve(options: YourOwn, examples: int) -> tuple[YourOwn, Recipe]:
        recipe = recipe_for(options.images.dataset, examples)
        if transform is not None:
            recipe = recipe._replace(transform=transform)
        return fill_in(_as_named(options, encoder, dataset), recipe, examples, {}), recipe

    def objective(options: YourOwn) -> Objective:
        level = loss_of_zeros(_alone(loss), options) if chance is None else chance
        if not 0 < level < float("inf"):
            raise ValueError(
                f"chance={level}: expected a loss above 0; hand over chance=, the loss of embeddings "
                "that tell nothing, such as that of random ones"
            )
        return Objective(loss, level, None, temperature)

    run(
        _as_named(config, encoder=None, dataset=dataset),
        Method(
            command=name,
            title=lambda options: name,
            check=check,
            resolve=resolve,
            objective=objective,
            folder=lambda options: name,
            load=load_images if dataset is None else lambda options: dataset,
            encoder=encoder,
            own=_names(handed, dataset),
        ),
    )


def _alone(loss: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    return lambda z1, z2: loss(z1, z2, axis_name=None)


def _names(handed: Mapping[str, Any], dataset: Dataset | None) -> dict[str, str]:
    """What config.json says: keys of their own, for `encoder` and `dataset` are flags' names."""
    names = {f"own_{kind}": named(thing) for kind, thing in handed.items() if thing is not None}
    return names | ({} if dataset is None else {"own_dataset": f"the user's own {dataset.name}"})


def _as_named(config: YourOwn, encoder: nn.Module | None, dataset: Dataset | None) -> YourOwn:
    """The options with the names of what was handed over in place of the flags'."""
    images = config.images
    if encoder is not None:
        images = dataclasses.replace(images, encoder=type(encoder).__name__)
    if dataset is not None:
        images = dataclasses.replace(images, dataset=dataset.name)
    return dataclasses.replace(config, images=images)
