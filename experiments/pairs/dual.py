"""What experiments on images and captions share: their options, and the task of a dual encoder.

An experiment passes in a `Method`; everything between its command line and its report follows.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.pairs.captions import caption_tokens, cut_note, make_tokenizer
from experiments.pairs.model import make_cached, make_loss, make_model, shifted, unchanged
from experiments.pairs.objectives import LossName, Objective
from experiments.pairs.page import conclude, show
from experiments.pairs.progress import make_evaluate
from experiments.running import runner, sources
from experiments.running.encoders import Encoder, OptionalTextEncoder, check_tiles, default_context
from experiments.running.examples import make_views
from experiments.running.facts import dataset_title, with_captions
from experiments.running.handed import check_features
from experiments.running.memory import check_rows_apart
from experiments.running.options import (
    Machine,
    OptionalFloat,
    OptionalInt,
    PrecisionOfLoss,
    Training,
    check_range,
    check_training,
    fill,
)
from experiments.running.plan import default_batch
from experiments.running.process import jit_once, say
from experiments.running.run import Task
from experiments.running.stand_in import Imagined, blank_pairs, known
from experiments.running.start import Network, Start, kept_tokenizer
from jaxcon.augment import Transform
from jaxcon.data.captions import PairDataset, load_pairs
from jaxcon.data.pairs import pair_batches
from jaxcon.encoders.remat import rematerialized
from jaxcon.encoders.tokenizer import Tokenizer

LEAST = 0.9  # share of a photograph in a crop, as in OpenCLIP: a caption tells of all of it
USUAL = 10_000_000  # pairs that a plan reckons with, about those of CC12M that can still be had


@dataclasses.dataclass(frozen=True)
class Pairs(sources.Source):
    """The data, and the networks that learn from them."""

    dataset: str = "scenes"
    """scenes (made up: objects of known shape, colour, size and place); your own images with captions:
    folder:PATH (with a table), tar:PATH (shards of webdataset) or parquet:PATH; or a TensorFlow
    Datasets name with captions, such as coco_captions."""
    encoder: Encoder = "layout_convnet"
    """Encoder of the images. layout_convnet keeps track of where things are, as captions do; for the
    others, see --help of experiments.simclr."""
    text_encoder: OptionalTextEncoder = "small"
    """Transformer of the texts. small: one block of width 64; base: of the size of CLIP's, 12 blocks
    of width 512."""
    vocabulary: int = 4096
    """Number of tokens at most, learned from the training captions."""
    context_length: OptionalInt = None
    """How many tokens of a caption are read; longer captions lose their end. Default: 64; with
    --text-encoder=base 77, as CLIP."""
    projection_dim: int = 128
    """Width of the embeddings that are compared."""


@dataclasses.dataclass(frozen=True)
class Loss:
    """What is minimized, over the global batch."""

    loss: LossName = "clip"
    """clip and siglip learn their temperature; gaussian and csd learn how certain an embedding is."""
    temperature: OptionalFloat = None
    """Similarities are divided by it; its initial value if it is learned. Default: clip 0.5,
    siglip 0.1, npairs 1; gaussian and csd have none."""
    loss_precision: PrecisionOfLoss = None
    """Precision of the products between embeddings: highest is float32, high three bfloat16 passes
    on a TPU and TF32 on an NVIDIA GPU. Default: highest; with --precision=bf16, bf16."""


class Config(Protocol):
    """The option groups of such an experiment."""

    @property
    def pairs(self) -> Pairs: ...
    @property
    def loss(self) -> Any: ...
    @property
    def training(self) -> Training: ...
    @property
    def machine(self) -> Machine: ...


Options = TypeVar("Options", bound=Config)


def check_options(config: Config) -> None:
    """Raises a ValueError for the first shared option that is out of range."""
    check_training(config.training, config.machine)
    sources.check_source(config.pairs)
    check_range(config.pairs, "projection_dim", "context_length", low=0)
    check_range(config.pairs, "vocabulary", low=257, open_low=False)


def fill_in(config: Options, examples: int, side: int) -> Options:
    """Returns the configuration with the recipe, one for all sides; a tenth of the run is warm-up."""
    training = fill(
        config.training,
        epochs=24,
        batch_size=default_batch(128, examples),
        optimizer="adamw",
        learning_rate=4e-3,
        weight_decay=1e-2,
    )
    assert training.epochs is not None
    training = fill(training, warmup_epochs=training.epochs / 10)
    pairs = fill(config.pairs, context_length=default_context(config.pairs.text_encoder))
    return dataclasses.replace(config, pairs=pairs, training=training)  # pyright: ignore[reportReturnType, reportArgumentType]


def load_captioned(config: Config) -> PairDataset:
    """Returns the dataset that the options name."""
    pairs = config.pairs
    if pairs.dataset == "scenes":
        say("loading scenes; the first time they are drawn, which takes half a minute")
    return load_pairs(pairs.dataset, **sources.load_arguments(pairs, config.machine))


def imagine_pairs(config: Config, examples: int | None) -> Imagined:
    """Returns blank images with made-up captions, for a plan; reads nothing."""
    pairs = config.pairs
    name, shape, count = known(pairs.dataset, pairs.image_size, USUAL)
    config = dataclasses.replace(config, pairs=dataclasses.replace(pairs, dataset=name))  # pyright: ignore[reportArgumentType, reportAssignmentType]
    words, cropped = pairs.vocabulary, pairs.crop_scale is not None
    dataset = functools.cache(lambda count: blank_pairs(name, shape, words, cropped=cropped))
    return Imagined(config, dataset, examples or count, max(shape[:2]))


@dataclasses.dataclass(frozen=True)
class Method:
    """What an experiment on images and captions passes in.

    Attributes:
      command: its name in config.json.
      title: maps the options to the title of the page.
      check: raises a ValueError for an option that cannot work.
      objective: maps all options to the objective.
      folder: maps the options to the first part of the run folder's name; the dataset's follows.
      load: maps the options to the dataset.
      imagine: maps the options, and a number of images or None, to what a plan takes for it.
      resolve: maps the options, the number of images and their side to complete options.
      transform: maps a key and an image of a batch to what the encoder sees.
      colours: does so where the images are crops that the host made.
      image_encoder: the user's own, instead of the flag's.
      text_encoder: the user's own, instead of the transformer.
      own: what the user passed in, as config.json describes it.
    """

    command: str
    title: Callable[[Any], str]
    check: Callable[[Any], None]
    objective: Callable[[Any], Objective]
    folder: Callable[[Any], str]
    load: Callable[[Any], PairDataset] = load_captioned
    imagine: Callable[[Any, int | None], Imagined] = imagine_pairs
    resolve: Callable[[Any, int, int], Any] = fill_in
    transform: Transform = shifted
    colours: Transform = unchanged
    image_encoder: nn.Module | None = None
    text_encoder: nn.Module | None = None
    own: Mapping[str, str] = dataclasses.field(default_factory=dict)


def run(config: Config, method: Method) -> None:
    """Trains, evaluates and reports; or resumes; or shows the table of a finished run."""
    runner.run(
        config,
        runner.Experiment(
            command=method.command,
            folder=method.folder,
            check=method.check,
            load=method.load,
            resolve=method.resolve,
            imagine=method.imagine,
            least=LEAST,
            task=functools.partial(make_task, method),
            show=show,
        ),
    )


def _check_text_encoder(module: nn.Module | None, tokenizer: Tokenizer) -> None:
    """Raises a ValueError if a user's own returns no features, or does not know all tokens."""
    if module is None:
        return
    last = tokenizer.vocabulary - 1
    tokens = jnp.full((2, tokenizer.length), last)
    check_features("text_encoder", module, tokens)
    apply = jit_once(lambda key: module.init_with_output(key, tokens, train=False)[0])
    if not jnp.isfinite(apply(jax.random.key(0))).all():
        raise ValueError(
            f"text_encoder: its output for token {last} is not finite; expected an encoder of at least "
            f"{tokenizer.vocabulary} tokens (--vocabulary sets how many there are at most)"
        )


def make_task(
    method: Method, config: Config, dataset: PairDataset, start: Start | None, path: Path
) -> Task:
    """Returns what is learned from images and captions.

    Args:
      method: what the experiment passes in.
      config: all options.
      dataset: images with captions.
      start: the run that this one starts from; its tokenizer is kept.
      path: the run's folder, which may already contain a tokenizer.
    """
    pairs, training = config.pairs, config.training
    batch_size = training.batch_size
    assert batch_size is not None
    shape = dataset.train.images.image_shape
    learned = {"vocabulary": pairs.vocabulary, "context_length": pairs.context_length}
    tokenizer = kept_tokenizer(path, start, learned)
    if tokenizer is None:
        tokenizer = make_tokenizer(dataset, **learned)
    tokens = jnp.zeros((1, tokenizer.length), jnp.int32)
    check_features("image_encoder", method.image_encoder, jnp.zeros((2, *shape)))
    check_tiles(pairs.encoder, shape)
    _check_text_encoder(method.text_encoder, tokenizer)
    objective = method.objective(config)
    model = make_model(
        pairs.encoder,
        objective,
        text=pairs.text_encoder or "small",
        side=shape[0],
        vocabulary=tokenizer.vocabulary,
        dim=pairs.projection_dim,
        precision=training.precision,
        image_encoder=method.image_encoder,
        text_encoder=method.text_encoder,
    )
    text = method.text_encoder
    init = functools.partial(model.init, images=jnp.zeros((1, *shape)), tokens=tokens, train=False)
    machine = config.machine
    in_chunks = {"image": pairs.encoder, "text": type(model.text.encoder).__name__}
    check_rows_apart(machine, init, in_chunks)
    encoders = [("image", "encoder"), ("text", "encoder")]
    apply = rematerialized(model.apply, *encoders) if machine.remat else model.apply
    size, transform, colours = machine.chunk_size, method.transform, method.colours
    cached = functools.partial(make_cached, objective, transform, apply, colours=colours)
    images = dataset.train.images
    crops = sources.crops_of(images, pairs, views=1, flip=False)
    read = sources.reading(machine, images, path)
    return Task(
        network=Network({"image": model.image, "text": model.text}, shape, tokenizer),
        encoder=pairs.encoder,
        beside="a text transformer" if text is None else type(text).__name__,
        with_what=with_captions(dataset),
        init=init,
        apply_fn=model.apply,
        loss_fn=make_loss(model, objective, transform, apply, colours=colours),
        value_and_grad=cached(chunk_size=size) if size else None,
        batches=lambda first, sharding: pair_batches(
            images,
            caption_tokens(dataset.train, tokenizer),
            seed=training.seed,
            batch_size=batch_size,
            start_step=first,
            sharding=sharding,
            crops=crops,
            **read,
        ),
        chance=objective.chance(batch_size),
        conclude=functools.partial(
            conclude,
            dataset=dataset,
            model=model,
            objective=objective,
            tokenizer=tokenizer,
            title=f"{method.title(config)} on {dataset_title(pairs.dataset)}",
            views=make_views(transform, [colours], crops, seed=training.seed),
            batch_size=batch_size,
            steps_per_epoch=len(dataset.train) // batch_size,
        ),
        evaluate=functools.partial(make_evaluate, dataset, model, objective, tokenizer),
        own=method.own,
        notes=lambda: filter(None, [cut_note(dataset, tokenizer)]),
    )
