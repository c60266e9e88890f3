"""What experiments on two views of an image share: their options, and the task.

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

from experiments.images.model import make_cached, make_loss, make_model
from experiments.images.page import Describe, conclude, show
from experiments.images.progress import make_evaluate, told
from experiments.images.recipes import Images, Recipe, default_rates
from experiments.running import facts, runner
from experiments.running.encoders import check_tiles
from experiments.running.examples import make_views
from experiments.running.handed import check_features
from experiments.running.memory import check_rows_apart
from experiments.running.options import Machine, Training, check_range, check_training, fill
from experiments.running.plan import default_batch, evaluation_steps
from experiments.running.run import Task
from experiments.running.sources import check_source, crops_of, load_arguments, reading
from experiments.running.stand_in import Imagined, blank_images, known
from experiments.running.start import Network, Start
from jaxcon.data.batching import batches
from jaxcon.data.sources import Dataset, load
from jaxcon.encoders.remat import rematerialized

IMAGENET = 1_281_167  # training images of ImageNet-1k
LEAST = 0.08  # share of a photograph in a crop, as in the papers


class Config(Protocol):
    """The option groups of such an experiment."""

    @property
    def images(self) -> Images: ...
    @property
    def loss(self) -> Any: ...
    @property
    def training(self) -> Training: ...
    @property
    def machine(self) -> Machine: ...


Options = TypeVar("Options", bound=Config)


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is minimized, and what its values and embeddings are compared with.

    Attributes:
      loss: `(z1, z2, *, axis_name) -> scalar`, over the global batch.
      chance: loss of embeddings that carry no information.
      candidates: K if that is ln K; None if it is another number.
      temperature: temperature of the collapse report.
      describe: maps a folder for figures and the embeddings of views of test images, before and
        after, to what the page shows in addition.
    """

    loss: Callable[..., jax.Array]
    chance: float
    candidates: int | None
    temperature: float
    describe: Describe = lambda folder, embeddings: ((), ())


def check_options(config: Config) -> None:
    """Raises a ValueError for the first shared option that is out of range."""
    check_training(config.training, config.machine)
    check_source(config.images)
    check_range(config.images, "projection_dim", low=0)


def fill_in(config: Options, recipe: Recipe, examples: int, loss: Mapping[str, Any]) -> Options:
    """Returns the configuration with gaps filled in from a recipe and the defaults of the loss."""
    epochs = config.training.epochs or recipe.epochs
    training = fill(
        config.training,
        epochs=epochs,
        # a shorter run has a shorter warm-up
        warmup_epochs=recipe.warmup_epochs * epochs / recipe.epochs,
        batch_size=default_batch(recipe.batch_size, examples),
        optimizer=recipe.optimizer,
    )
    assert training.batch_size is not None
    assert training.optimizer is not None
    rates = default_rates(recipe, training.optimizer, training.batch_size)
    return dataclasses.replace(  # pyright: ignore[reportReturnType]
        config,  # pyright: ignore[reportArgumentType]
        images=fill(config.images, encoder=recipe.encoder),
        loss=fill(config.loss, **loss),
        training=fill(training, **rates),
    )


def load_images(config: Config) -> Dataset:
    """Returns the dataset that the options name."""
    images = config.images
    return load(images.dataset, **load_arguments(images, config.machine))


def imagine_images(config: Config, examples: int | None) -> Imagined:
    """Returns blank images of the size that the options name, for a plan; reads nothing."""
    images = config.images
    name, shape, count = known(images.dataset, images.image_size, IMAGENET)
    config = dataclasses.replace(config, images=dataclasses.replace(images, dataset=name))  # pyright: ignore[reportArgumentType, reportAssignmentType]
    blank = functools.partial(blank_images, name, shape, images.crop_scale is not None)
    return Imagined(config, blank, examples or count, max(shape[:2]))


@dataclasses.dataclass(frozen=True)
class Method:
    """What an experiment on two views of an image passes in.

    Attributes:
      command: its name in config.json.
      title: maps the options to the title of the page.
      check: raises a ValueError for an option that cannot work.
      resolve: maps the options, the number of images and their side to complete options, and their
        recipe.
      objective: maps all options to the objective.
      folder: maps the options to the first part of the run folder's name; the dataset's follows.
      load: maps the options to the dataset.
      imagine: maps the options, and a number of images or None, to what a plan takes for it.
      encoder: the user's own, instead of the flag's.
      own: what the user passed in, as config.json describes it.
    """

    command: str
    title: Callable[[Any], str]
    check: Callable[[Any], None]
    resolve: Callable[[Any, int, int], tuple[Any, Recipe]]
    objective: Callable[[Any], Objective]
    folder: Callable[[Any], str]
    load: Callable[[Any], Dataset] = load_images
    imagine: Callable[[Any, int | None], Imagined] = imagine_images
    encoder: nn.Module | None = None
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
            resolve=lambda options, examples, side: method.resolve(options, examples, side)[0],
            imagine=method.imagine,
            least=LEAST,
            task=functools.partial(make_task, method),
            show=show,
        ),
    )


def make_task(
    method: Method, config: Config, dataset: Dataset, start: Start | None, path: Path
) -> Task:
    """Returns what is learned from two views, given all options and the images."""
    del start  # the network only depends on options and images
    shape = dataset.train.image_shape
    check_features("encoder", method.encoder, jnp.zeros((2, *shape)))
    check_tiles(config.images.encoder or "", shape)
    recipe = method.resolve(config, len(dataset.train), max(shape[:2]))[1]
    goal = method.objective(config)
    model = make_model(
        config.images, config.training.precision, side=max(shape[:2]), encoder=method.encoder
    )
    seed, batch_size = config.training.seed, config.training.batch_size
    assert batch_size is not None
    init = functools.partial(model.init, images=jnp.zeros((1, *shape)), train=False)
    machine, name = config.machine, config.images.encoder or ""
    check_rows_apart(machine, init, {"encoder": name})
    apply = rematerialized(model.apply, ["encoder"]) if machine.remat else model.apply
    transform, colours, size = recipe.transform, recipe.colours, machine.chunk_size
    cached = functools.partial(make_cached, transform, goal.loss, apply, colours=colours)
    crops = crops_of(dataset.train, config.images, views=2, flip=True)
    read = reading(machine, dataset.train, path)
    views = make_views(transform, colours, crops, seed=seed)
    steps_per_epoch = len(dataset.train) // batch_size
    between = batch_size * evaluation_steps(machine, steps_per_epoch)

    def encode(variables: Any, images: jax.Array) -> Any:
        return model.apply(variables, images, method="encode")

    return Task(
        network=Network({"encoder": model.encoder, "head": model.head}, shape),
        encoder=name,
        beside="a projection head",
        with_what=facts.with_classes(dataset.class_names),
        init=init,
        apply_fn=model.apply,
        loss_fn=make_loss(model, transform, goal.loss, apply, colours=colours),
        value_and_grad=cached(chunk_size=size) if size else None,
        batches=lambda first, sharding: batches(
            dataset.train,
            seed=seed,
            batch_size=batch_size,
            start_step=first,
            sharding=sharding,
            crops=crops,
            **read,
        ),
        chance=goal.chance,
        conclude=functools.partial(
            conclude,
            dataset=dataset,
            title=f"{method.title(config)} on {facts.dataset_title(config.images.dataset)}",
            encode=encode,
            views=views,
            temperature=goal.temperature,
            candidates=goal.candidates,
            describe=goal.describe,
            steps_per_epoch=steps_per_epoch,
            scored=told(dataset, between),
        ),
        evaluate=make_evaluate(dataset, encode, views, between=between),
        own=method.own,
    )
