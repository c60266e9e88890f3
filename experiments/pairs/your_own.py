"""Image-text training with one's own loss, encoders or pairs: what `docs/your_own.md` shows."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import flax.linen as nn
import jax

from experiments.pairs.dual import Method, Pairs, check_options, load_captioned, run
from experiments.pairs.model import shifted
from experiments.pairs.objectives import Objective, Outputs, cosine
from experiments.running.handed import Loss, check_left_out, check_loss, check_module, level
from experiments.running.options import Machine, Training, parse
from experiments.running.own import as_named, names
from experiments.running.process import quiet_libraries
from jaxcon.augment import Transform
from jaxcon.data.splits import PairDataset


@dataclasses.dataclass(frozen=True)
class YourOwn:
    """Train a dual encoder on what your own page hands over, evaluate retrieval, write a report."""

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
    """Run an experiment on images and captions: train or resume, evaluate, write the report.

    Retrieval and the page compare by cosine.

    Args:
      name: of the method, for config.json, the page and the folder in `runs`.
      loss: `(images, texts, *, axis_name, **learned) -> scalar` of embeddings `[batch, dim]`, which
        begin with norms of about 1; a row and the same row of the other are a pair; over the rows
        of all devices.
      learned: first values of scalars that are learned beside, which the loss is given by their
        names; a `temperature` stays from 0.01 to 10.
      image_encoder: `image_encoder(images, train=...)` from float `[batch, height, width, channels]`
        in [0, 1] to features `[batch, width]`. None: the one of `--encoder`.
      text_encoder: `text_encoder(tokens, train=...)` from int32 `[batch, length]`, 0 to
        `--vocabulary` - 1, 0 for padding, to features `[batch, width]`. None: a transformer.
      transform: of an image in training, from a key and an image. None: a small shift.
      dataset: images with captions in three splits. None: the one of `--dataset`.
      chance: loss of embeddings that tell nothing, above 0. None: its value for zeros.
      arguments: of the command line. None: those of the process.

    Raises:
      TypeError: a loss or an encoder that cannot be called so.
    """
    check_loss(loss, **learned)
    check_module("image_encoder", image_encoder)
    check_module("text_encoder", text_encoder)
    quiet_libraries()
    typed = parse(YourOwn, program=None, arguments=arguments)
    config = dataclasses.replace(
        typed, pairs=as_named(typed.pairs, encoder=image_encoder, dataset=dataset)
    )

    def check(options: YourOwn) -> None:
        check_options(options)
        check_left_out(typed.pairs, dataset=dataset, encoder=image_encoder)

    def of_outputs(outputs: Outputs) -> jax.Array:
        return loss(outputs.image.z, outputs.text.z, axis_name="batch", **outputs.scalars)

    def objective(options: YourOwn) -> Objective:
        dim = options.pairs.projection_dim
        tells_nothing = level(loss, chance, (options.training.batch_size or 0, dim), **learned)
        return Objective(
            of_outputs,
            learned,
            None,
            cosine,
            lambda batch: tells_nothing,
            told="for embeddings that tell nothing",
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
            transform=shifted if transform is None else transform,
            image_encoder=image_encoder,
            text_encoder=text_encoder,
            own=own | ({"own_learned": scalars} if scalars else {}),
        ),
    )
