"""Whole training steps as their compiler makes them for slices of TPUs, and where their time goes.

    python -m benchmarks.whole_steps                     # half an hour or more on 2 cores
    python -m benchmarks.whole_steps --steps simclr --label "with ..."

No accelerator is needed, only the compiler; `jaxcon.planning.topologies` says how to install it. A step
is the one that an experiment runs: views, encoders, loss, gradients, optimizer, on images of 224
pixels or, in "simclr, crops", on two crops of each that the host makes. *All times are estimates*
(`jaxcon.planning.estimates`), of the computation of one chip: they leave out what sending takes.
Written to `--out`: `steps-compiled.json`, under the name of the step and a label, and a page of all
that it holds, `steps-compiled.md`.
"""

import os

from jaxcon.planning.topologies import ENVIRONMENT

os.environ.update(ENVIRONMENT)

import argparse
import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.whole_steps_page import page
from experiments.images.model import make_loss, make_model
from experiments.images.recipes import Images
from experiments.pairs import model as pairs
from experiments.pairs.objectives import make_objective
from experiments.running.options import Training
from experiments.running.plan import Plan
from experiments.running.run import make_optimizer
from jaxcon.augment import simclr_transform
from jaxcon.encoders.remat import rematerialized
from jaxcon.losses import ntxent_loss
from jaxcon.planning.estimates import cycles, estimate, products_flop
from jaxcon.planning.memory import Memory, memory_of
from jaxcon.planning.programs import Operation, executed
from jaxcon.planning.topologies import chip_of, devices
from jaxcon.planning.traffic import traffic
from jaxcon.training.devices import batch_sharding, make_mesh
from jaxcon.training.state import create_state
from jaxcon.training.step import LossFn, make_train_step, shard_step

SIDE = 224
# Parts of a step by what is in the name that JAX gave an operation, the first that fits.
PARTS = {
    "views": r"\b(two_)?views\b|vmap\(vmap",
    "optimizer": r"\boptimizer\b",
    "texts, backward": r"transpose\(.*\btext/",
    "texts, forward": r"\btext/",
    "images, backward": r"transpose\(.*\b(image|encoder)/",
    "images, forward": r"\b(image|encoder)/",
}


class Learned(NamedTuple):
    """What a step trains.

    Attributes:
      init: maps a key to the variables.
      apply: the model's.
      loss: a loss for `jaxcon.training.step`.
      rows: shapes and dtypes of what a row of the batch holds.
      training: the options of training.
    """

    init: Callable[[jax.Array], Any]
    apply: Callable[..., Any]
    loss: LossFn
    rows: dict[str, tuple[tuple[int, ...], Any]]
    training: Training


def simclr(
    encoder: str, batch_size: int, side: int, remat: bool, *, crops: bool = False
) -> Learned:
    """The step of `experiments.simclr --precision=bf16`, on photos.

    Args:
      encoder: value of the flag.
      batch_size: images, over all chips.
      side: of the images.
      remat: whether activations are computed again.
      crops: whether the host has made two crops of each image, or views are cropped in the step.
    """
    model = make_model(Images(encoder=encoder), "bf16", side=side)
    loss = partial(ntxent_loss, temperature=0.1, precision=jnp.bfloat16)
    apply = rematerialized(model.apply, ["encoder"]) if remat else model.apply
    images = jnp.zeros((1, side, side, 3))
    rate = 0.3 * batch_size / 256
    return Learned(
        partial(model.init, images=images, train=False),
        model.apply,
        make_loss(model, simclr_transform, loss, apply),
        {"image": ((2, side, side, 3), jnp.uint8)} if crops else {},
        Training(optimizer="lars", learning_rate=rate, weight_decay=1e-6, batch_size=batch_size),
    )


def clip(
    encoder: str, batch_size: int, side: int, remat: bool, *, depth: int | None = None
) -> Learned:
    """The step of `experiments.clip --text-encoder=base --precision=bf16`, with CLIP's vocabulary.

    Args:
      encoder: value of the flag.
      batch_size: pairs, over all chips.
      side: of the images.
      remat: whether activations are computed again.
      depth: number of blocks of both encoders; None: their own.
    """
    objective = make_objective("clip", None, precision=jnp.bfloat16)
    settings = {"text": "base", "vocabulary": 49_408, "dim": 512, "precision": "bf16"}
    model = pairs.make_model(encoder, objective, side=side, **settings)
    if depth is not None:
        image, text = (part.encoder.clone(depth=depth) for part in (model.image, model.text))
        model = pairs.make_model(
            encoder, objective, side=side, **settings, image_encoder=image, text_encoder=text
        )
    names = [("image", "encoder"), ("text", "encoder")]
    apply = rematerialized(model.apply, *names) if remat else model.apply
    images, tokens = jnp.zeros((1, side, side, 3)), jnp.zeros((1, 77), jnp.int32)
    return Learned(
        partial(model.init, images=images, tokens=tokens, train=False),
        model.apply,
        pairs.make_loss(model, objective, apply=apply),
        {"tokens": ((77,), jnp.int32)},
        Training(optimizer="adamw", learning_rate=1e-3, weight_decay=0.1, batch_size=batch_size),
    )


class Setting(NamedTuple):
    """A step of the page: what is learned, and on what slice."""

    make: Callable[..., Learned]
    encoder: str
    topology: str
    batch_size: int
    remat: bool = False
    chips: int | None = None


STEPS = {
    "simclr": Setting(simclr, "resnet50", "v5e:2x2", 256),
    "simclr, crops": Setting(partial(simclr, crops=True), "resnet50", "v5e:2x2", 256),
    "clip": Setting(clip, "vit_b16", "v5e:4x4", 4096),
    # One block of each encoder on one chip with its share of the batch: minutes, not half an hour.
    "clip, one block": Setting(partial(clip, depth=1), "vit_b16", "v5e:2x2", 256, chips=1),
}


def compiled(setting: Setting, *, side: int = SIDE) -> Any:
    """Compiles the step for its slice."""
    learned = setting.make(setting.encoder, setting.batch_size, side, setting.remat)
    plan = Plan(1_281_167, setting.batch_size, 100, 10)  # the length of the run is in the schedule

    def begin(key: jax.Array) -> Any:
        optimizer = make_optimizer(learned.training, plan)
        return create_state(learned.init(key), optimizer, apply_fn=learned.apply), key

    mesh = make_mesh(devices(setting.topology)[: setting.chips])
    everywhere, by_rows = jax.NamedSharding(mesh, jax.P()), batch_sharding(mesh)
    state, key = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),
        jax.eval_shape(begin, jax.random.key(0)),
    )
    rows = {"image": ((side, side, 3), jnp.uint8), "index": ((), jnp.int32)} | learned.rows
    batch = {
        name: jax.ShapeDtypeStruct((setting.batch_size, *shape), dtype, sharding=by_rows)
        for name, (shape, dtype) in rows.items()
    }
    step = shard_step(make_train_step(learned.loss), mesh)
    return step.lower(state, batch, key).compile()  # pyright: ignore[reportFunctionMemberAccess]


def figures(text: str, topology: str, *, flop: float, memory: Memory) -> dict[str, Any]:
    """What a compiled program says of one chip: time, products, memory, what is sent, parts."""
    chip = chip_of(topology)
    parts = dict.fromkeys([*PARTS, "other"], 0.0)
    for op, times in executed(text):
        parts[_part(op)] += 1e3 * times * (cycles(op) or 0) / chip.clock / 1e9
    chips = math.prod(map(int, topology.partition(":")[2].split("x")))
    sent = traffic(text, chips)
    ms = estimate(text, chip).ms
    return {
        "ms": round(ms, 1),
        "tflop": round(flop / 1e12, 2),
        "share": round(flop / (ms * 1e-3 * chip.rate * 1e12), 3),
        "gib": round(memory.temporaries / 2**30, 2),
        "arguments_gib": round(memory.arguments / 2**30, 2),
        "sent": {kind: [times, round(size / 2**20, 1)] for kind, (times, size) in sent.items()},
        "parts": {name: round(part, 1) for name, part in parts.items() if part},
    }


def _part(op: Operation) -> str:
    found = re.search(r'op_name="([^"]*)"', op.text)
    name = found[1] if found else ""
    part = next((part for part, known in PARTS.items() if re.search(known, name)), "other")
    pixels = any(shape.dims[-3:] == (SIDE, SIDE, 3) for shape in op.shapes)
    return "views" if part == "other" and pixels else part


def main() -> None:
    """Compiles, prints and writes the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", nargs="+", default=list(STEPS), choices=STEPS)
    parser.add_argument("--label", default="now")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    args = parser.parse_args()
    file = args.out / "steps-compiled.json"
    cells = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for name in args.steps:
        setting = STEPS[name]
        program = compiled(setting)
        text, memory = program.as_text() or "", memory_of(program)
        found = figures(text, setting.topology, flop=products_flop(text), memory=memory)
        described = {"slice": setting.topology, "batch": setting.batch_size, "remat": setting.remat}
        cells.setdefault(name, {})[args.label] = described | {"encoder": setting.encoder} | found
        print(name, args.label, found, flush=True)
        file.write_text(json.dumps(cells, indent=1) + "\n", encoding="utf-8")
        (args.out / "steps-compiled.md").write_text(page(cells), encoding="utf-8")


if __name__ == "__main__":
    main()
