"""Pre-training with your own loss, encoder, views or images, as `docs/your_own.md` shows."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax

from experiments.images.recipes import Images, Recipe, recipe_for
from experiments.images.two_views import (
    Method,
    Objective,
    check_options,
    fill_in,
    imagine_images,
    load_images,
    run,
)
from experiments.running.handed import Loss, check_left_out, check_loss, check_module, level
from experiments.running.memory import HAS_ITS_OWN, refuse_of_pairs
from experiments.running.options import Machine, Training, parse
from experiments.running.own import as_named, names
from experiments.running.process import quiet_libraries
from experiments.running.stand_in import given
from jaxcon.augment import Transform
from jaxcon.data.splits import Dataset


@dataclasses.dataclass(frozen=True)
class YourOwn:
    """Pre-train with what your own page passes in, evaluate frozen features, write a report."""

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
    """Runs an experiment on two views of an image: trains or resumes, evaluates, writes the report.

    Args:
      name: name of the method, for config.json, the page and the folder in `runs`.
      loss: `(z1, z2, *, axis_name) -> scalar` of embeddings `[batch, dim]`; rows i of both are a
        pair; over the rows of all devices.
      encoder: `encoder(images, train=...)` maps float `[batch, height, width, channels]` in [0, 1]
        to features `[batch, width]`. None: the one that `--encoder` names.
      transform: maps a key and an image to a view, or a crop where photographs are cropped as they
        are read. None: the one that suits the dataset.
      dataset: images in three splits. None: the one that `--dataset` names.
      chance: loss of embeddings that carry no information, above 0. None: its value for zeros.
      temperature: only affects what the collapse check says about the loss.
      arguments: command-line arguments. None: those of the process.

    Raises:
      TypeError: if the loss or an encoder cannot be called like this.
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
        refuse_of_pairs(options.machine, HAS_ITS_OWN)
        check_left_out(typed.images, dataset=dataset, encoder=encoder)

    def resolve(options: YourOwn, examples: int, side: int) -> tuple[YourOwn, Recipe]:
        recipe = recipe_for(options.images.dataset, examples, side, options.images.encoder)
        if transform is not None:
            recipe = recipe._replace(transform=transform, colours=(transform, transform))
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
            imagine=imagine_images
            if dataset is None
            else functools.partial(given, dataset=dataset),
            encoder=encoder,
            own=names(dataset, loss=loss, encoder=encoder, transform=transform),
        ),
    )
