"""What experiments on images and captions share: their options, and the task of a dual encoder."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax.numpy as jnp

from experiments.pairs.captions import caption_tokens, cut_note, make_tokenizer
from experiments.pairs.model import make_loss, make_model
from experiments.pairs.objectives import LossName, make_objective
from experiments.pairs.page import conclude
from experiments.running.encoders import Encoder
from experiments.running.facts import with_captions
from experiments.running.options import Machine, OptionalFloat, OptionalInt, OptionalPath, Training
from experiments.running.process import say
from experiments.running.run import Task
from experiments.running.start import Network, Start, kept_tokenizer
from jaxcon.data.captions import PairDataset, load_pairs
from jaxcon.data.pairs import pair_batches


@dataclasses.dataclass(frozen=True)
class Pairs:
    """What is learned from, and what learns."""

    dataset: str = "scenes"
    """scenes (made up: objects of known shape, colour, size and place), folder:PATH (a table of
    your images and captions), or a TensorFlow Datasets name with captions, such as coco_captions."""
    data_dir: OptionalPath = None
    """Where datasets are prepared. Default: the user's cache folder."""
    image_size: OptionalInt = None
    """Side that images are resized to. Default: that of most of them, at most 64."""
    encoder: Encoder = "layout_convnet"
    """Of the images; texts get a small transformer. layout_convnet tells where things lie, as
    captions do; see --help of experiments.simclr for the others."""
    vocabulary: int = 4096
    """At most so many tokens, learned from the training captions."""
    context_length: int = 64
    """Tokens of a caption that are read; longer captions lose their end."""
    projection_dim: int = 128
    """Width of the embeddings that are compared."""


@dataclasses.dataclass(frozen=True)
class Loss:
    """What is minimized, over the global batch."""

    loss: LossName = "clip"
    """clip and siglip learn their temperature; gaussian and csd learn how sure an embedding is."""
    temperature: OptionalFloat = None
    """Similarities are divided by it; the first value where it is learned. Default: clip 0.5,
    siglip 0.1, npairs 1; gaussian and csd have none."""


class Config(Protocol):
    """The option groups of such an experiment."""

    @property
    def pairs(self) -> Pairs: ...
    @property
    def loss(self) -> Loss: ...
    @property
    def training(self) -> Training: ...
    @property
    def machine(self) -> Machine: ...


def load_captioned(config: Config) -> PairDataset:
    """Return the dataset that the options name."""
    pairs = config.pairs
    if pairs.dataset == "scenes":
        say("loading scenes; the first time they are drawn, which takes half a minute")
    return load_pairs(pairs.dataset, data_dir=pairs.data_dir, image_size=pairs.image_size)


def make_task(
    title: Callable[[Any], str],
    config: Config,
    dataset: PairDataset,
    start: Start | None,
    path: Path,
) -> Task:
    """Return what is learned from images and captions.

    Args:
      title: of the page, from the options.
      config: all options.
      dataset: images with captions.
      start: the run that this one starts from, whose tokenizer is kept.
      path: of the run's folder, where one may lie already.
    """
    pairs, loss, training = config.pairs, config.loss, config.training
    batch_size = training.batch_size
    assert batch_size is not None
    shape = dataset.train.images.image_shape
    learned = {"vocabulary": pairs.vocabulary, "context_length": pairs.context_length}
    tokenizer = kept_tokenizer(path, start, learned)
    if tokenizer is None:
        tokenizer = make_tokenizer(dataset, **learned)
    objective = make_objective(loss.loss, loss.temperature)
    model = make_model(
        pairs.encoder,
        objective,
        side=shape[0],
        vocabulary=tokenizer.vocabulary,
        dim=pairs.projection_dim,
        precision=training.precision,
    )
    tokens = jnp.zeros((1, tokenizer.length), jnp.int32)
    return Task(
        network=Network({"image": model.image, "text": model.text}, shape, tokenizer),
        encoder=pairs.encoder,
        beside="a text transformer",
        with_what=with_captions(dataset),
        init=functools.partial(
            model.init, images=jnp.zeros((1, *shape)), tokens=tokens, train=False
        ),
        apply_fn=model.apply,
        loss_fn=make_loss(model, objective),
        batches=lambda first, sharding: pair_batches(
            dataset.train.images,
            caption_tokens(dataset.train, tokenizer),
            seed=training.seed,
            batch_size=batch_size,
            start_step=first,
            sharding=sharding,
        ),
        chance=objective.chance(batch_size),
        conclude=functools.partial(
            conclude,
            dataset=dataset,
            model=model,
            objective=objective,
            tokenizer=tokenizer,
            title=title(config),
            seed=training.seed,
            loss=loss.loss,
            batch_size=batch_size,
            temperature=(loss.temperature or 1.0) if loss.loss == "npairs" else None,
        ),
        notes=lambda: filter(None, [cut_note(dataset, tokenizer)]),
    )
