"""What experiments on two views of an image share: the model, the loss of a batch, the whole run.

An experiment hands over an `Objective`; everything between its command line and its report is here.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.images.page import Describe, conclude, show
from experiments.images.recipes import Images, Recipe, default_rates
from experiments.running import facts
from experiments.running.encoders import make_encoder
from experiments.running.ends import run_errors, usage_errors
from experiments.running.options import Machine, Training, check_range, check_training, fill, flat
from experiments.running.plan import Plan, default_batch, make_plan, share_batch
from experiments.running.process import say, select_devices
from experiments.running.results import show_if_finished
from experiments.running.run import abstract_state, checkpoint_space, pretrain
from experiments.running.start import Network, Start, check_fits, load_start
from experiments.running.workdir import check_place, open_run, workdir_path
from jaxcon.augment import Transform, two_views
from jaxcon.data.batching import batches
from jaxcon.data.sources import Dataset, load
from jaxcon.encoders import ProjectionHead
from jaxcon.training.step import LossFn
from jaxcon.training.workdir import Workdir


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


class Objective(NamedTuple):
    """What is minimized, and against what its values and embeddings are set.

    Attributes:
        loss: `(z1, z2, *, axis_name) -> scalar`, over the global batch.
        chance: loss of embeddings that tell nothing.
        candidates: K where that is ln K; None where it is another number.
        temperature: of the collapse report.
        describe: from a folder for figures and the embeddings of views of test images, before and
            after, to what the page shows beside that of every experiment.
    """

    loss: Callable[..., jax.Array]
    chance: float
    candidates: int | None
    temperature: float
    describe: Describe = lambda folder, embeddings: ((), ())


class Model(nn.Module):
    """Encoder and projection head; only the encoder is kept for use."""

    encoder: nn.Module
    head: nn.Module

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        return self.head(self.encoder(images, train=train), train=train)

    def encode(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the features that are of use, and the embeddings that the loss sees."""
        features = self.encoder(images, train=False)
        return features, self.head(features, train=False)


def make_model(images: Images, precision: str, *, side: int) -> Model:
    """Return the model for images of `side` pixels: batch statistics are those of the global batch."""
    settings = {"axis_name": "batch", "dtype": jnp.bfloat16 if precision == "bf16" else None}
    assert images.encoder is not None
    return Model(
        encoder=make_encoder(images.encoder, side=side, **settings),
        head=ProjectionHead(dim=images.projection_dim, **settings),
    )


def make_loss(model: Model, transform: Transform, loss: Callable[..., jax.Array]) -> LossFn:
    """Return the loss of a batch: views, embeddings, the objective over those of all devices."""

    def loss_fn(params: Any, carried: Any, batch: Any, key: jax.Array) -> Any:
        views = two_views(key, batch["image"], transform=transform, index=batch["index"])
        z, carried = model.apply(
            {"params": params, **carried},
            jnp.concatenate(views),
            train=True,
            mutable=list(carried),
        )
        z1, z2 = jnp.split(z, 2)
        return loss(z1, z2, axis_name="batch"), (carried, {})

    return loss_fn


def check_options(config: Config) -> None:
    """Raise a ValueError for the first shared option outside of its range."""
    check_training(config.training, config.machine)
    check_range(config.images, "image_size", "projection_dim", low=0)


def fill_in(config: Options, recipe: Recipe, examples: int, loss: Mapping[str, float]) -> Options:
    """Return the configuration with a recipe, and what the loss needs, where it was left open."""
    epochs = config.training.epochs or recipe.epochs
    training = fill(
        config.training,
        epochs=epochs,
        # a shorter run, a shorter rise
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


class Prepared(NamedTuple):
    """All that a run needs, checked: nothing in its folder changes before.

    Attributes:
        config: with everything filled in.
        recipe: of the dataset.
        devices: that share the batch.
        dataset: images.
        plan: how long.
        model: what is trained.
        init: from a key to its variables.
        start: the run whose weights it starts from, or None.
        workdir: its folder.
    """

    config: Any
    recipe: Recipe
    devices: list[Any]
    dataset: Dataset
    plan: Plan
    model: Model
    init: Callable[..., Any]
    start: Start | None
    workdir: Workdir


def run(
    config: Options,
    *,
    experiment: str,
    name: str,
    title: str,
    check: Callable[[Options], None],
    resolve: Callable[[Options, int], tuple[Options, Recipe]],
    objective: Callable[[Options], Objective],
) -> None:
    """Train, evaluate and report; or resume; or show the table of a finished run.

    Args:
        config: of the command line.
        experiment: the command.
        name: of the folder in `runs`, before the dataset's.
        title: of the method, for the page.
        check: raises a ValueError for an option that cannot work.
        resolve: from options and the number of images to all options, and the recipe they are of.
        objective: of the resolved options.
    """
    with usage_errors():
        check(config)
        ready = prepare(config, experiment=experiment, name=name, resolve=resolve)
        if show_if_finished(ready.workdir, show):
            return
    config, recipe, devices, dataset, plan, model, init, start, workdir = ready
    setup = announce(ready)
    goal = objective(config)
    with run_errors(workdir, dataset):
        trained = pretrain(
            workdir,
            config.training,
            config.machine,
            plan,
            devices=devices,
            init=init,
            apply_fn=model.apply,
            loss_fn=make_loss(model, recipe.transform, goal.loss),
            batches=lambda start, sharding: batches(
                dataset.train,
                seed=config.training.seed,
                batch_size=plan.batch_size,
                start_step=start,
                sharding=sharding,
            ),
            chance=goal.chance,
            start=start and start.variables,
        )
        if not trained.finished or jax.process_index() != 0:
            return
        conclude(
            workdir,
            trained,
            dataset,
            title=f"{title} on {facts.dataset_title(config.images.dataset)}",
            encode=lambda variables, images: model.apply(variables, images, method="encode"),
            transform=recipe.transform,
            seed=config.training.seed,
            temperature=goal.temperature,
            facts=facts.facts(setup, workdir.path / "times.json"),
            settings=flat(config.images, config.loss, config.training, config.machine),
            candidates=goal.candidates,
            describe=goal.describe,
        )


def prepare(
    config: Options,
    *,
    experiment: str,
    name: str,
    resolve: Callable[[Options, int], tuple[Options, Recipe]],
) -> Prepared:
    """Return what a run needs, after every check.

    Raises:
        ValueError: what the user can mend.
    """
    start_from = config.training.start_from
    path = workdir_path(config.machine, name, config.images.dataset, start_from)
    check_place(path)
    devices = select_devices(config.machine)
    dataset = load(
        config.images.dataset,
        data_dir=config.images.data_dir,
        image_size=config.images.image_size,
    )
    examples, shape = len(dataset.train), dataset.train.image_shape
    config = share_batch(
        config, lambda options: resolve(options, examples)[0], devices=len(devices)
    )
    config, recipe = resolve(config, examples)
    plan = make_plan(config.training, examples=examples, devices=len(devices))
    model = make_model(config.images, config.training.precision, side=max(shape[:2]))
    init = functools.partial(model.init, images=jnp.zeros((1, *shape)), train=False)
    # Also: are the images of a size that the encoder takes?
    state = abstract_state(config.training, plan, init, model.apply)
    network = Network({"encoder": model.encoder, "head": model.head}, shape)
    start = load_start(start_from, path)
    check_fits(start, network, init)
    workdir = open_run(
        path,
        experiment=experiment,
        options=flat(config.images, config.loss, config.training),
        network=network,
        dataset=dataset,
        start=start,
        needed=checkpoint_space(state, path),
    )
    return Prepared(config, recipe, devices, dataset, plan, model, init, start, workdir)


def announce(ready: Prepared) -> facts.Setup:
    """Say what was found and what will be trained, and return it."""
    dataset = ready.dataset
    say(dataset.summary())
    setup = facts.Setup(
        encoder=ready.config.images.encoder or "",
        beside="a projection head",
        parameters=facts.count_parameters(ready.init),
        image_shape=dataset.train.image_shape,
        images=(len(dataset.train), len(dataset.validation), len(dataset.test)),
        with_what=facts.with_classes(dataset.class_names),
        plan=ready.plan,
        devices=ready.devices,
    )
    for line in facts.announce(setup):
        say(line)
    return setup
