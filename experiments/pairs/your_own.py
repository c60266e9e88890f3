"""Image-text training with your own loss, encoders or pairs, as `docs/your_own.md` shows."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import flax.linen as nn
import jax

from experiments.pairs.dual import (
    Method,
    Pairs,
    check_options,
    imagine_pairs,
    load_captioned,
    run,
)
from experiments.pairs.model import shifted, unchanged
from experiments.pairs.objectives import Objective, Outputs, cosine
from experiments.running.handed import Loss, check_left_out, check_loss, check_module, level
from experiments.running.memory import HAS_ITS_OWN, refuse_of_pairs
from experiments.running.options import Machine, Training, parse
from experiments.running.own import as_named, names
from experiments.running.process import quiet_libraries
from experiments.running.stand_in import given
from jaxcon.augment import Transform
from jaxcon.data.splits import PairDataset


@dataclasses.dataclass(frozen=True)
class YourOwn:
    """Train a dual encoder on what your own page passes in, evaluate retrieval, write a report."""

    pairs: Pairs = dataclasses.field(default_factory=Pairs)
    loss: Loss = dataclasses.field(default_factory=Loss)
    training: Training = dataclasses.field(default_factory=Training)
    machine: Machine = dataclasses.field(default_factory=Machine)


def pretrain(
    name: str,
    *,
    loss: Callable[..., jax.Array],
    learned: Mapping[str, float] = MappingProxyType({}),
    image_encoder: nn.Module | None = None,
    text_encoder: nn.Module | None = None,
    transform: Transform | None = None,
    dataset: PairDataset | None = None,
    chance: float | None = None,
    arguments: Sequence[str] | None = None,
) -> None:
    """Runs an experiment on images and captions: trains or resumes, evaluates, writes the report.

    Retrieval and the page compare embeddings by cosine.

    Args:
      name: name of the method, for config.json, the page and the folder in `runs`.
      loss: `(images, texts, *, axis_name, **learned) -> scalar` of embeddings `[batch, dim]`, whose
        norms are about 1 at first; rows i of both are a pair; over the rows of all devices.
      learned: initial values of scalars that are learned as well; the loss is given them as
        keywords; a `temperature` is kept between 0.01 and 10.
      image_encoder: `image_encoder(images, train=...)` maps float `[batch, height, width, channels]`
        in [0, 1] to features `[batch, width]`. None: the one that `--encoder` names.
      text_encoder: `text_encoder(tokens, train=...)` maps int32 `[batch, length]`, from 0 to
        `--vocabulary` - 1, 0 for padding, to features `[batch, width]`. None: the one that
        `--text-encoder` names.
      transform: maps a key and a training image, or its crop where a photograph is cropped as it is
        read, to what the encoder sees. None: a small shift; crops stay as they are.
      dataset: images with captions in three splits. None: the one that `--dataset` names.
      chance: loss of embeddings that carry no information, above 0. None: its value for zeros.
      arguments: command-line arguments. None: those of the process.

    Raises:
      TypeError: if the loss or an encoder cannot be called like this.
    """
    check_loss(loss, **learned)
    check_module("image_encoder", image_encoder)
    check_module("text_encoder", text_encoder)
    quiet_libraries()
    typed = parse(YourOwn, program=None, arguments=arguments)
    pairs = as_named(typed.pairs, encoder=image_encoder, dataset=dataset)
    if text_encoder is not None:
        pairs = dataclasses.replace(pairs, text_encoder=None)
    config = dataclasses.replace(typed, pairs=pairs)

    def check(options: YourOwn) -> None:
        check_options(options)
        refuse_of_pairs(options.machine, HAS_ITS_OWN)
        check_left_out(
            typed.pairs, dataset=dataset, encoder=image_encoder, text_encoder=text_encoder
        )

    def of_outputs(outputs: Outputs) -> jax.Array:
        return loss(outputs.image.z, outputs.text.z, axis_name="batch", **outputs.scalars)

    def objective(options: YourOwn) -> Objective:
        dim = options.pairs.projection_dim
        uninformed = level(loss, chance, (options.training.batch_size or 0, dim), **learned)
        return Objective(
            of_outputs,
            learned,
            None,
            cosine,
            lambda batch: uninformed,
            told="for embeddings that carry no information",
        )

    own = names(
        dataset,
        loss=loss,
        image_encoder=image_encoder,
        text_encoder=text_encoder,
        transform=transform,
    )
    scalars = ", ".join(f"{scalar}={first}" for scalar, first in learned.items())
    run(
        config,
        Method(
            command=name,
            title=lambda options: name,
            check=check,
            objective=objective,
            folder=lambda options: name,
            load=load_captioned if dataset is None else lambda options: dataset,
            imagine=imagine_pairs if dataset is None else functools.partial(given, dataset=dataset),
            transform=shifted if transform is None else transform,
            colours=unchanged if transform is None else transform,
            image_encoder=image_encoder,
            text_encoder=text_encoder,
            own=own | ({"own_learned": scalars} if scalars else {}),
        ),
    )
