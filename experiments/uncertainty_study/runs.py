"""How a piece of the study becomes a record: train, then measure.

What is compiled for a loss and a batch size serves all its pieces: the seed and the learning rate are
inputs of the step, not constants in it.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.pairs.captions import caption_tokens
from experiments.pairs.model import DualEncoder, make_loss, make_model
from experiments.pairs.objectives import Objective
from experiments.pairs.retrieval import (
    Encode,
    chance,
    evaluate,
    held_out,
    make_encode,
    rank_correlation,
)
from experiments.running.encoders import Encoder
from experiments.running.process import jit_once
from experiments.uncertainty_study.losses import make_objective
from experiments.uncertainty_study.pieces import Piece
from experiments.uncertainty_study.record import Deviations, Record
from jaxcon.data.captions import PairDataset, PairSplit
from jaxcon.data.pairs import pair_batches
from jaxcon.diagnostics import collapse_report
from jaxcon.encoders import Temperature
from jaxcon.encoders.dual import Embedded
from jaxcon.encoders.tokenizer import Tokenizer
from jaxcon.training.devices import batch_sharding, make_mesh, replicate
from jaxcon.training.loop import advance
from jaxcon.training.optimizers import adamw, keep_between, warmup_cosine
from jaxcon.training.state import create_state
from jaxcon.training.step import Step, make_train_step, shard_step

DIM = 128
VOCABULARY = 4096
LENGTH = 35  # tokens in a row when the study was run, as in the longest training caption of scenes
WEIGHT_DECAY = 1e-2
WARMUP = 0.1  # share of the steps
_PATIENCE = 50  # refused updates in a row that end a run


class Network(NamedTuple):
    """What belongs to a loss: its objective, its model, and functions compiled for start and end."""

    objective: Objective
    model: DualEncoder
    init: Callable[[jax.Array], Any]
    encode: Encode


class Trainer(NamedTuple):
    """What belongs to a loss, a batch size and a number of steps."""

    optimizer: optax.GradientTransformation
    step: Step


class Laboratory:
    """Runs pieces on a dataset of captioned images with grades.

    Args:
      dataset: the dataset `load_pairs("scenes")`.
      devices: the devices that share a batch.
      encoder: name of the image encoder.
      vocabulary: number of tokens at most.
    """

    def __init__(
        self,
        dataset: PairDataset,
        devices: Sequence[Any],
        *,
        encoder: Encoder = "layout_convnet",
        vocabulary: int = VOCABULARY,
    ):
        texts = [text for captions in dataset.train.captions for text in captions]
        self._dataset = dataset
        self._encoder: Encoder = encoder
        self._tokenizer = Tokenizer.train(texts, vocabulary=vocabulary, max_length=LENGTH)
        self._captions = caption_tokens(dataset.train, self._tokenizer)
        self._mesh = make_mesh(devices)
        # Not a decorator: the cache of a method would keep the dataset alive.
        self._network = functools.cache(self._make_network)
        self._trainer = functools.cache(self._make_trainer)

    def __call__(self, piece: Piece, rate: float) -> Record:
        """Returns the record of a run at a learning rate, without the seconds that it took."""
        network = self._network(piece.loss)
        variables, rows = self._train(piece, rate)
        return Record(
            device=self._mesh.devices.flat[0].device_kind,
            chance_loss=network.objective.chance(piece.batch_size),
            warmup=_warmup(piece.steps),
            loss=[_rounded(row["loss"]) for row in rows],
            gradient_norm=[_rounded(row["gradient_norm"]) for row in rows],
            skipped=int(rows[-1]["skipped"]),
            scalars={name: _rounded(rows[-1][name]) for name in network.objective.scalars},
            seconds=0.0,
            **self._measure(piece, network, variables),
        )

    def _make_network(self, loss: str) -> Network:
        objective = make_objective(loss)
        shape = self._dataset.train.images.image_shape
        model = make_model(
            self._encoder,
            objective,
            side=shape[0],
            vocabulary=self._tokenizer.vocabulary,
            dim=DIM,
            precision="f32",
        )
        image, tokens = jnp.zeros((1, *shape)), jnp.zeros((1, self._tokenizer.length), jnp.int32)
        init = jit_once(lambda key: model.init(key, image, tokens, train=False))
        return Network(objective, model, init, make_encode(model, self._tokenizer))

    def _make_trainer(self, loss: str, batch_size: int, steps: int) -> Trainer:
        """Makes a trainer; the batch size only serves as a key: each has its own compiled step."""
        network = self._network(loss)
        schedule = warmup_cosine(1.0, warmup_steps=_warmup(steps), total_steps=steps)
        optimizer = optax.chain(adamw(schedule, weight_decay=WEIGHT_DECAY), times_state())
        optimizer = keep_between(optimizer, Temperature().bounds)
        step = make_train_step(make_loss(network.model, network.objective))
        return Trainer(optimizer, shard_step(step, self._mesh))

    def _train(self, piece: Piece, rate: float) -> tuple[Any, list[dict[str, Any]]]:
        """Returns the variables after the run, and the metrics of its steps."""
        network = self._network(piece.loss)
        trainer = self._trainer(piece.loss, piece.batch_size, piece.steps)
        keys = jax.random.split(jax.random.key(piece.seed))
        variables = jax.device_get(network.init(keys[0]))
        state = create_state(variables, trainer.optimizer, apply_fn=network.model.apply)
        scheduled: Any = state.opt_state
        state = state.replace(opt_state=(scheduled[0], np.float32(rate)))
        state = replicate(state, self._mesh)
        batches = pair_batches(
            self._dataset.train.images,
            self._captions,
            seed=piece.seed,
            batch_size=piece.batch_size,
            sharding=batch_sharding(self._mesh),
        )
        rows, pending = [], []
        walk = advance(
            state, lambda now, batch: trainer.step(now, batch, keys[1]), batches, steps=piece.steps
        )
        for done, state, metrics in walk:  # noqa: B007  (the last state is the trained one)
            pending.append(metrics)
            if done % _PATIENCE == 0 or done == piece.steps:  # reading them waits for the device
                rows += jax.device_get(pending)
                pending = []
                if gave_up([int(row["skipped"]) for row in rows]):
                    break
        return jax.device_get(state.variables()), rows

    def _measure(self, piece: Piece, network: Network, variables: Any) -> dict[str, Any]:
        """Returns the fields of a record that are measured after the run.

        Only the part "seeds" uses the test images; the others measure on validation images.
        """
        split = self._dataset.test if piece.part == "seeds" else self._dataset.validation
        measured = dataclasses.replace(self._dataset, test=split)
        held = held_out(split)
        sides = (
            network.encode.images(variables, held.images),
            network.encode.texts(variables, held.captions),
        )
        fields = {"scores": None, "deviations": None, "chance": chance(measured)}
        if not all(rankable(side) for side in sides):
            return fields | {"verdict": "not finite", "effective_rank": 0.0, "uniformity": 0.0}
        report = collapse_report(sides[0].z, sides[1].z, temperature=0.07)
        fields |= {
            "verdict": report.verdict,
            "effective_rank": _rounded(report.effective_rank),
            "uniformity": _rounded(report.uniformity),
            "scores": evaluate(
                network.encode,
                variables,
                network.objective,
                measured,
                zero_shot=piece.part != "stability",
            ),
        }
        if piece.part == "seeds" and network.objective.log_std is not None:
            fields["deviations"] = deviations(network.encode, variables, split)
        return fields


def times_state() -> optax.GradientTransformation:
    """Returns a transformation that multiplies updates by its state: a rate that is not compiled in.

    Example:
      >>> update = times_state().update
      >>> updates, _ = update({"w": jnp.ones(2)}, jnp.float32(0.5))
      >>> updates["w"].tolist()
      [0.5, 0.5]
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.tree.map(lambda leaf: state * leaf, updates), state

    return optax.GradientTransformation(lambda params: jnp.ones((), jnp.float32), update)


def deviations(encode: Encode, variables: Any, split: PairSplit) -> Deviations:
    """Returns how the log deviations relate to what is known about captions and images.

    Args:
      encode: the model's functions.
      variables: the model's variables.
      split: pairs with grades, counts and the attribute size, 0 for small.
    """
    assert split.grades is not None
    assert split.counts is not None
    texts = [text for captions in split.captions for text in captions]
    grades = np.array([grade for row in split.grades for grade in row])
    of_texts = encode.texts(variables, texts).log_std
    of_images = encode.images(variables, split.images.images).log_std
    size = split.attributes["size"]
    return Deviations(
        grade=rank_correlation(of_texts, grades),
        grade_from_2=rank_correlation(of_texts[grades > 1], grades[grades > 1]),
        objects=rank_correlation(of_images, split.counts),
        size=rank_correlation(of_images[size >= 0], size[size >= 0]),
        by_grade=_means(of_texts, grades),
        by_objects=_means(of_images, split.counts),
    )


def _means(values: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    return {str(group): _rounded(values[groups == group].mean()) for group in np.unique(groups)}


def rankable(side: Embedded) -> bool:
    """Returns whether scores can be computed: NaN, and values that overflow, cannot be ranked."""
    return bool((np.abs(side.z) < 1e15).all() and (np.abs(side.log_std) < 40).all())


def gave_up(skipped: Sequence[int]) -> bool:
    """Returns whether the last updates were all refused, from the count of refusals at each step."""
    before = skipped[-_PATIENCE - 1] if len(skipped) > _PATIENCE else 0
    return skipped[-1] - before >= _PATIENCE


def _warmup(steps: int) -> int:
    return round(WARMUP * steps)


def _rounded(value: Any) -> Any:
    """Rounds to five digits, enough for a figure; None for what is not finite, as JSON has no NaN.

    Example:
      >>> _rounded(0.123456), _rounded(float("nan"))
      (0.12346, None)
    """
    return float(f"{float(value):.5g}") if math.isfinite(value) else None
