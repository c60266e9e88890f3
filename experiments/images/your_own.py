"""Pre-training with one's own loss, encoder, views or images: what `docs/your_own.md` shows."""

import dataclasses
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax

from experiments.images.recipes import Images, Recipe, recipe_for
from experiments.images.two_views import (
    Method,
    Objective,
    check_options,
    fill_in,
    load_images,
    run,
)
from experiments.running.handed import Loss, check_left_out, check_loss, check_module, level
from experiments.running.options import Machine, Training, parse
from experiments.running.own import as_named, names
from experiments.running.process import quiet_libraries
from jaxcon.augment import Transform
from jaxcon.data.splits import Dataset


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

    Raises:
      TypeError: a loss or an encoder that cannot be called so.
    """
    check_loss(loss)
    check_module("encoder", encoder)
    quiet_libraries()
    typed = parse(YourOwn, program=None, arguments=arguments)
    config = dataclasses.replace(
        typed, images=as_named(typed.images, encoder=encoder, dataset=dataset)
    )

    def check(options: YourOwn) -> None:
        check_options(options)
        check_left_out(typed.images, dataset=dataset, encoder=encoder)

    def resolve(options: YourOwn, examples: int) -> tuple[YourOwn, Recipe]:
        recipe = recipe_for(options.images.dataset, examples)
        if transform is not None:
            recipe = recipe._replace(transform=transform)
        return fill_in(options, recipe, examples, {}), recipe

    def objective(options: YourOwn) -> Objective:
        shape = (options.training.batch_size or 0, options.images.projection_dim)
        return Objective(loss, level(loss, chance, shape), None, temperature)

    run(
        config,
        Method(
            command=name,
            title=lambda options: name,
            check=check,
            resolve=resolve,
            objective=objective,
            folder=lambda options: name,
            load=load_images if dataset is None else lambda options: dataset,
            encoder=encoder,
            own=names(dataset, loss=loss, encoder=encoder, transform=transform),
        ),
    )
