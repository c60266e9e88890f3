"""SimCLR: an encoder learns from pairs of views of the same image, without labels.

    python -m experiments.simclr
    python -m experiments.simclr --dataset=folder:PATH
    python -m experiments.simclr --dataset=cifar10 --accelerator=gpu

The first command: one minute on 2 CPU cores; on test images linear 99.5 %, one label a class 90.0 %,
kNN 99.5 % (mean of seeds 0, 1, 2).

Reference: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments import _common, _images, _options, _results
from jaxcon.augment import Transform, two_views
from jaxcon.data.batching import batches
from jaxcon.data.sources import load
from jaxcon.diagnostics import chance_loss
from jaxcon.encoders import ProjectionHead
from jaxcon.losses import ntxent_loss
from jaxcon.training.checkpoint import check_writable, open_workdir
from jaxcon.training.step import LossFn


@dataclasses.dataclass(frozen=True)
class Loss:
    """What is minimized: NT-Xent over the views of the global batch."""

    temperature: _options.FloatOfRecipe = None
    """Similarities are divided by it."""


@dataclasses.dataclass(frozen=True)
class SimCLR:
    """Pre-train an encoder by SimCLR, evaluate its frozen features, write a report.

    Running the same command again resumes, or shows the table of a finished run.

    Options without a value here take it from the recipe of the dataset, and config.json in the
    workdir tells what they were:

    digits: mlp, 400 epochs of 256 images a step, adamw at 0.01, temperature 0.7

    photos, from 5,000 on: resnet18, 200 epochs of 512, lars at 1.0, temperature 0.5

    fewer photos: convnet, 60 epochs of 128, adamw at 0.002, temperature 0.2
    """

    images: _images.Images = dataclasses.field(default_factory=_images.Images)
    loss: Loss = dataclasses.field(default_factory=Loss)
    training: _options.Training = dataclasses.field(default_factory=_options.Training)
    machine: _options.Machine = dataclasses.field(default_factory=_options.Machine)


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


def make_model(images: _images.Images, precision: str) -> Model:
    """Return the model: batch statistics are those of the global batch."""
    settings = {"axis_name": "batch", "dtype": jnp.bfloat16 if precision == "bf16" else None}
    assert images.encoder is not None
    return Model(
        encoder=_images.make_encoder(images.encoder, **settings),
        head=ProjectionHead(dim=images.projection_dim, **settings),
    )


def make_loss(model: Model, transform: Transform, temperature: float) -> LossFn:
    """Return the loss of a batch: views, embeddings, NT-Xent with the negatives of all devices."""

    def loss_fn(params: Any, batch_stats: Any, batch: Any, key: jax.Array) -> Any:
        views = two_views(key, batch["image"], transform=transform, index=batch["index"])
        variables = {"params": params, "batch_stats": batch_stats}
        z, updates = model.apply(
            variables, jnp.concatenate(views), train=True, mutable=["batch_stats"]
        )
        z1, z2 = jnp.split(z, 2)
        loss = ntxent_loss(z1, z2, temperature=temperature, axis_name="batch")
        return loss, (updates["batch_stats"], {})

    return loss_fn


def resolve(config: SimCLR, examples: int) -> tuple[SimCLR, _images.Recipe]:
    """Return the configuration with the recipe of its dataset filled in."""
    recipe = _images.recipe_for(config.images.dataset, examples)
    epochs = config.training.epochs or recipe.epochs
    training = _options.fill(
        config.training,
        epochs=epochs,
        warmup_epochs=recipe.warmup_epochs
        * epochs
        / recipe.epochs,  # a shorter run, a shorter rise
        batch_size=_images.default_batch(recipe.batch_size, examples),
        optimizer=recipe.optimizer,
    )
    assert training.batch_size is not None
    assert training.optimizer is not None
    rates = _images.default_rates(recipe, training.optimizer, training.batch_size)
    resolved = dataclasses.replace(
        config,
        images=_options.fill(config.images, encoder=recipe.encoder),
        loss=_options.fill(config.loss, temperature=recipe.temperature),
        training=_options.fill(training, **rates),
    )
    return resolved, recipe


def check(config: SimCLR) -> None:
    """Raise a ValueError for the first option outside of its range."""
    _options.check_training(config.training, config.machine)
    _options.check_range(config.loss, "temperature", low=0)
    _options.check_range(config.images, "image_size", "projection_dim", low=0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment of a command line."""
    _common.quiet_libraries()
    config = _options.parse(SimCLR, program="simclr", arguments=arguments)
    with _options.usage_errors():
        check(config)
        path = _common.workdir_path(config.machine, "simclr", config.images.dataset)
        check_writable(path)
        devices = _common.select_devices(config.machine)
        dataset = load(
            config.images.dataset,
            data_dir=config.images.data_dir,
            image_size=config.images.image_size,
        )
        config, recipe = resolve(config, len(dataset.train))
        plan = _common.make_plan(config.training, examples=len(dataset.train), devices=len(devices))
        model = make_model(config.images, config.training.precision)
        init = functools.partial(model.init, train=False)
        example = jnp.zeros((1, *dataset.train.image_shape))
        jax.eval_shape(init, jax.random.key(0), example)  # are the images of a size it takes?
        workdir = open_workdir(path, _options.flat(config.images, config.loss, config.training))
    if _results.show_if_finished(workdir):
        return

    temperature = config.loss.temperature
    assert temperature is not None
    candidates = 2 * plan.batch_size - 1
    run = _common.pretrain(
        workdir,
        config.training,
        config.machine,
        plan,
        devices=devices,
        init=lambda key: init(key, example),
        apply_fn=model.apply,
        loss_fn=make_loss(model, recipe.transform, temperature),
        batches=lambda start, sharding: batches(
            dataset.train,
            seed=config.training.seed,
            batch_size=plan.batch_size,
            start_step=start,
            sharding=sharding,
        ),
        chance=chance_loss(candidates),
    )
    if run.finished:
        _results.conclude(
            workdir,
            run,
            dataset,
            title=f"SimCLR on {config.images.dataset}",
            encode=lambda variables, images: model.apply(variables, images, method="encode"),
            pairs=_images.held_out_views(dataset.test, recipe.transform, seed=config.training.seed),
            temperature=temperature,
            settings=_options.flat(config.images, config.loss, config.training, config.machine),
            candidates=candidates,
        )


if __name__ == "__main__":
    main()
