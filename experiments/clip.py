"""CLIP: an image encoder and a text encoder learn which caption belongs to which picture.

    python -m experiments.clip
    python -m experiments.clip --loss=npairs
    python -m experiments.clip --dataset=folder:PATH

The folder holds images and a table (CSV, JSON lines or Parquet) with the columns image, caption.

By default, seeds 0, 1 and 2, 8.6 minutes on 2 CPU cores beside other work: among 1,000 test pairs
recall@1 is 0.85, 0.79 and 0.79 from image to text, 0.81, 0.77 and 0.78 from text to image, recall@10
1.00 both ways; zero-shot shape 0.93, 0.76 and 0.88, colour 1.00, 0.97 and 0.88, size 0.99, 0.92 and
0.99, position 1.00 on test images of one object.

The third on 1,911 emoji of 64 x 64 pixels with their names as captions, before weight decay left
biases alone and views were shifted with their edges: recall@1 0.10 both ways among 382 test pairs, by
chance 0.003 (seed 0).

Reference: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.pairs.model import DualEncoder, caption_tokens, make_loss, make_model
from experiments.pairs.objectives import LossName, Objective, make_objective
from experiments.pairs.page import conclude, show
from experiments.running import facts
from experiments.running.encoders import Encoder
from experiments.running.ends import run_errors, usage_errors
from experiments.running.options import (
    Machine,
    OptionalFloat,
    OptionalInt,
    OptionalPath,
    Training,
    check_range,
    check_training,
    fill,
    flat,
    parse,
)
from experiments.running.plan import Plan, default_batch, make_plan, share_batch
from experiments.running.process import quiet_libraries, say, select_devices
from experiments.running.results import show_if_finished
from experiments.running.run import abstract_state, checkpoint_space, pretrain
from experiments.running.start import Network, Start, check_fits, kept_tokenizer, load_start
from experiments.running.workdir import check_place, open_run, workdir_path
from jaxcon.data.captions import PairDataset, load_pairs
from jaxcon.data.pairs import pair_batches
from jaxcon.encoders.tokenizer import Tokenizer
from jaxcon.training.checkpoint import Workdir
from jaxcon.training.metrics import read_metrics

# What the losses are called in a heading.
TITLES = {
    "clip": "CLIP",
    "siglip": "SigLIP",
    "npairs": "N-pairs",
    "gaussian": "Gaussian CLIP",
    "csd": "PCME++",
}


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


@dataclasses.dataclass(frozen=True)
class CLIP:
    """Train a dual encoder on images and captions, evaluate retrieval, write a report.

    Options without a value here take it from the recipe; config.json in the workdir says which.
    Running the same command again resumes, or shows the table of a finished run.
    """

    pairs: Pairs = dataclasses.field(default_factory=Pairs)
    loss: Loss = dataclasses.field(default_factory=Loss)
    training: Training = dataclasses.field(default_factory=Training)
    machine: Machine = dataclasses.field(default_factory=Machine)


def resolve(config: CLIP, examples: int) -> CLIP:
    """Return the configuration with the recipe filled in: a tenth of the run is warm-up."""
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
    return dataclasses.replace(config, training=training)


def check(config: CLIP) -> None:
    """Raise a ValueError for the first option outside of its range, or without a meaning."""
    check_training(config.training, config.machine)
    check_range(config.loss, "temperature", low=0)
    check_range(config.pairs, "image_size", "projection_dim", "context_length", low=0)
    check_range(config.pairs, "vocabulary", low=257, open_low=False)
    if config.loss.temperature is not None:
        if config.loss.loss in ("gaussian", "csd"):
            raise ValueError(
                f"--temperature={config.loss.temperature}: --loss={config.loss.loss} has none; "
                "leave it out"
            )
        if config.loss.loss != "npairs" and not 0.01 <= config.loss.temperature <= 10:
            raise ValueError(
                f"--temperature={config.loss.temperature}: a learned one starts from 0.01 to 10"
            )


def make_tokenizer(dataset: PairDataset, vocabulary: int, context_length: int = 64) -> Tokenizer:
    """Return the tokenizer of the training captions."""
    texts = [text for captions in dataset.train.captions for text in captions]
    return Tokenizer.train(texts, vocabulary=vocabulary, max_length=context_length)


def cut_note(dataset: PairDataset, tokenizer: Tokenizer) -> str | None:
    """Return a line on captions that lose their end: cut, two may become one row of tokens."""
    parts = (dataset.train, dataset.validation, dataset.test)
    texts = [text for part in parts for captions in part.captions for text in captions]
    count = tokenizer.count_cut(texts)
    if not count:
        return None
    return (
        f"{count:,} of {len(texts):,} captions were cut at {tokenizer.length} tokens; a larger "
        "--context-length reads more of them"
    )


def loss_notes(
    workdir: Workdir, name: str, chance: float, batch: int, temperature: float | None
) -> str:
    """Say where the loss ended between 0 and chance, and how low cosines could have brought it.

    Args:
        workdir: of the run.
        name: of the loss.
        chance: its value for equal embeddings.
        batch: pairs in a batch.
        temperature: of a loss of cosines that does not learn it, else None.
    """
    last = [row["loss"] for row in read_metrics(workdir.metrics)[-20:] if row["loss"] is not None]
    mean = sum(last) / len(last) if last else math.nan
    level = f"ln {batch}" if name in ("clip", "npairs", "gaussian") else "for equal embeddings"
    note = f"Loss at the end: {mean:.3f}, {mean / chance:.2f} of chance, {chance:.3f} ({level})."
    if temperature is not None:
        # All pairs at cosine 1, all others at that of a regular simplex, -1 / (N - 1).
        lowest = math.log1p((batch - 1) * math.exp(-(1 + 1 / (batch - 1)) / temperature))
        note += (
            f" Cosines at temperature {temperature:g} cannot bring it below {lowest:.3f}, "
            f"{lowest / chance:.2f} of chance: a loss that looks stuck near ln {batch} says little "
            "here, retrieval and the collapse check say whether anything is learned."
        )
    return note


class Prepared(NamedTuple):
    """All that a run needs, checked: nothing in its folder changes before.

    Attributes:
        config: with everything filled in.
        devices: that share the batch.
        dataset: images with captions.
        plan: how long.
        tokenizer: of the captions.
        objective: what is minimized.
        model: what is trained.
        init: from a key to its variables.
        start: the run whose weights it starts from, or None.
        workdir: its folder.
    """

    config: CLIP
    devices: list[Any]
    dataset: PairDataset
    plan: Plan
    tokenizer: Tokenizer
    objective: Objective
    model: DualEncoder
    init: Callable[..., Any]
    start: Start | None
    workdir: Workdir


def prepare(config: CLIP) -> Prepared:
    """Return what a run needs, after every check.

    Raises:
        ValueError: what the user can mend.
    """
    check(config)
    start_from = config.training.start_from
    path = workdir_path(config.machine, "clip", config.pairs.dataset, start_from)
    check_place(path)
    devices = select_devices(config.machine)
    if config.pairs.dataset == "scenes":
        say("loading scenes; the first time they are drawn, which takes half a minute")
    dataset = load_pairs(
        config.pairs.dataset,
        data_dir=config.pairs.data_dir,
        image_size=config.pairs.image_size,
    )
    examples, shape = len(dataset.train), dataset.train.images.image_shape
    config = share_batch(config, lambda options: resolve(options, examples), devices=len(devices))
    plan = make_plan(config.training, examples=examples, devices=len(devices))
    start = load_start(start_from, path)
    learned = {
        "vocabulary": config.pairs.vocabulary,
        "context_length": config.pairs.context_length,
    }
    tokenizer = kept_tokenizer(path, start, learned)
    if tokenizer is None:
        tokenizer = make_tokenizer(dataset, **learned)
    objective = make_objective(config.loss.loss, config.loss.temperature)
    model = make_model(
        config.pairs.encoder,
        objective,
        side=shape[0],
        vocabulary=tokenizer.vocabulary,
        dim=config.pairs.projection_dim,
        precision=config.training.precision,
    )
    tokens = jnp.zeros((1, tokenizer.length), jnp.int32)
    init = functools.partial(model.init, images=jnp.zeros((1, *shape)), tokens=tokens, train=False)
    # Also: are the images of a size that the encoder takes?
    state = abstract_state(config.training, plan, init, model.apply)
    network = Network({"image": model.image, "text": model.text}, shape, tokenizer)
    check_fits(start, network, init)
    workdir = open_run(
        path,
        experiment="clip",
        options=flat(config.pairs, config.loss, config.training),
        network=network,
        dataset=dataset,
        start=start,
        needed=checkpoint_space(state, path),
    )
    return Prepared(
        config, devices, dataset, plan, tokenizer, objective, model, init, start, workdir
    )


def announce(ready: Prepared) -> facts.Setup:
    """Say what was found and what will be trained, and return it."""
    config, dataset = ready.config, ready.dataset
    say(dataset.summary())
    if note := cut_note(dataset, ready.tokenizer):
        say(note)
    setup = facts.Setup(
        encoder=config.pairs.encoder,
        beside="a text transformer",
        parameters=facts.count_parameters(ready.init),
        image_shape=dataset.train.images.image_shape,
        images=(len(dataset.train), len(dataset.validation), len(dataset.test)),
        with_what=facts.with_captions(dataset),
        plan=ready.plan,
        devices=ready.devices,
    )
    for line in facts.announce(setup):
        say(line)
    return setup


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment of a command line."""
    quiet_libraries()
    config = parse(CLIP, program="clip", arguments=arguments)
    with usage_errors():
        ready = prepare(config)
        if show_if_finished(ready.workdir, show):
            return
    config, devices, dataset, plan, tokenizer, objective, model, init, start, workdir = ready
    setup = announce(ready)
    captions = caption_tokens(dataset.train, tokenizer)
    chance = objective.chance(plan.batch_size)
    with run_errors(workdir, dataset):
        run = pretrain(
            workdir,
            config.training,
            config.machine,
            plan,
            devices=devices,
            init=init,
            apply_fn=model.apply,
            loss_fn=make_loss(model, objective),
            batches=lambda start, sharding: pair_batches(
                dataset.train.images,
                captions,
                seed=config.training.seed,
                batch_size=plan.batch_size,
                start_step=start,
                sharding=sharding,
            ),
            chance=chance,
            start=start and start.variables,
        )
        if not run.finished or jax.process_index() != 0:
            return
        constant = (config.loss.temperature or 1.0) if config.loss.loss == "npairs" else None
        note = loss_notes(workdir, config.loss.loss, chance, plan.batch_size, constant)
        conclude(
            workdir,
            run,
            dataset,
            model=model,
            objective=objective,
            tokenizer=tokenizer,
            title=f"{TITLES[config.loss.loss]} on {facts.dataset_title(config.pairs.dataset)}",
            seed=config.training.seed,
            notes=[note],
            facts=facts.facts(setup, workdir.path / "times.json"),
            settings=flat(config.pairs, config.loss, config.training, config.machine),
            temperature=constant,
            candidates=plan.batch_size
            if config.loss.loss in ("clip", "npairs", "gaussian")
            else None,
        )


if __name__ == "__main__":
    main()
