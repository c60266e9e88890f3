"""What the flags for encoders that do not fit save: the memory of a SimCLR step, as compiled.

    python -m benchmarks.fitting                               # for the CPU of this machine
    python -m benchmarks.fitting --chip v5e --encoders resnet18 --batch-size 256
    python -m benchmarks.fitting --chip v5e:4x4 --devices 16 --encoders vit

Compiles whole steps, with their optimizer and a moving average, on images of 32 x 32 pixels, and prints
a line for each: what a device of the program is given, mostly the state, its temporaries and, for TPUs,
the time that their compiler estimates. Nothing is run. For an accelerator it takes its compiler, as
`jaxcon.planning.topologies` says, and minutes for each step.
"""

import argparse
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from jaxcon.planning.topologies import CHIPS, ENVIRONMENT, chip_of, devices

os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})

import jax
import jax.numpy as jnp
import optax

from experiments.images.model import make_cached, make_loss, make_model
from experiments.images.recipes import Images
from jaxcon.encoders.remat import rematerialized
from jaxcon.losses import ntxent_loss
from jaxcon.planning.estimates import estimate
from jaxcon.planning.memory import memory_of
from jaxcon.training.devices import batch_sharding, make_mesh, select_accelerator
from jaxcon.training.optimizers import adamw
from jaxcon.training.sharded import make_sharded_step, state_sharding
from jaxcon.training.state import create_state
from jaxcon.training.step import make_train_step, shard_step

SHAPE = (32, 32, 3)


def compile_step(
    encoder: str,
    batch_size: int,
    devices: Sequence[Any],
    *,
    remat: str = "no",
    chunk_size: int | None = None,
    shard_state: bool = False,
) -> Any:
    """Compiles a step.

    Args:
      encoder: value of the flag.
      batch_size: images, of each of which there are two views, over all devices.
      devices: that it is for.
      remat: "no"; "parts", as the flag has it; "whole": the encoder at once.
      chunk_size: value of the flag; None: without.
      shard_state: whether the flag is given.
    """
    model = make_model(Images(encoder=encoder), "f32", side=SHAPE[0])
    images = jnp.zeros((1, *SHAPE))

    def whole(variables: Any, images: Any, **settings: Any) -> Any:
        return jax.checkpoint(partial(model.apply, **settings))(variables, images)

    apply = {"no": model.apply, "whole": whole, "parts": rematerialized(model.apply, ["encoder"])}
    learned = (lambda key, image: image, ntxent_loss, apply[remat])
    chunked = make_cached(*learned, chunk_size=chunk_size) if chunk_size else None
    optimizer = adamw(optax.constant_schedule(1e-3), weight_decay=0.0)

    def begin(key: Any) -> Any:
        variables = model.init(key, images, train=False)
        return create_state(variables, optimizer, apply_fn=model.apply, average=True)

    mesh = make_mesh(devices)
    shapes, key = jax.eval_shape(lambda key: (begin(key), key), jax.random.key(0))
    loss_fn = make_loss(model, *learned)
    settings: Any = {"value_and_grad": chunked, "ema_decay": 0.99}
    if shard_state:
        shardings = state_sharding(shapes, mesh)
        step = make_sharded_step(loss_fn, shardings, **settings)
    else:
        shardings = jax.tree.map(lambda _: jax.NamedSharding(mesh, jax.P()), shapes)
        step = shard_step(make_train_step(loss_fn, **settings), mesh)

    def struct(leaf: Any, sharding: Any) -> Any:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    state = jax.tree.map(struct, shapes, shardings)
    key = struct(key, jax.NamedSharding(mesh, jax.P()))
    rows = batch_sharding(mesh)
    batch = {
        "image": jax.ShapeDtypeStruct((batch_size, *SHAPE), jnp.uint8, sharding=rows),
        "index": jax.ShapeDtypeStruct((batch_size,), jnp.int32, sharding=rows),
    }
    return step.lower(state, batch, key).compile()  # pyright: ignore[reportFunctionMemberAccess]


def main() -> None:
    """Compiles and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chip", help=f"one of {', '.join(CHIPS)}, or a topology of them: v5e:4x4")
    parser.add_argument("--devices", type=int, default=1, help="that share the batch")
    parser.add_argument("--encoders", nargs="+", default=["resnet18", "vit"])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--chunk-size", type=int, default=32)
    args = parser.parse_args()
    if args.chip:
        shared = devices(args.chip)[: args.devices]
    else:
        shared = select_accelerator("cpu", num_devices=args.devices)
    for encoder in args.encoders:
        forms: dict[str, dict[str, Any]] = {
            "plain": {},
            "the whole encoder recomputed": {"remat": "whole"},
            "--remat": {"remat": "parts"},
        }
        if encoder == "vit":
            chunks = {"chunk_size": args.chunk_size}
            forms[f"--chunk-size={args.chunk_size}"] = chunks
            forms[f"--chunk-size={args.chunk_size} --remat"] = chunks | {"remat": "parts"}
        if len(shared) > 1:
            forms["--shard-state"] = {"shard_state": True}
        for name, settings in forms.items():
            program = compile_step(encoder, args.batch_size, shared, **settings)
            memory = memory_of(program)
            given, between = memory.arguments / 2**20, memory.temporaries / 2**20
            line = f"| {encoder} | {name} | {given:,.1f} MiB | {between:,.0f} MiB |"
            if args.chip and chip_of(args.chip).platform == "tpu":
                text = program.as_text() or ""
                line += f" {estimate(text, chip_of(args.chip)).ms:.1f} ms |"
            print(line, flush=True)


if __name__ == "__main__":
    main()
