"""The losses as their compilers make them for accelerators: estimated time, memory and kernels.

    python -m benchmarks.compiled                      # an hour or more on 2 cores

No accelerator is needed, only the compilers; `jaxcon.planning.topologies` says how to install them.
Three tables of value and gradients, products in bfloat16: three losses in every form that they could
take, beside plain dense jnp; all losses over pairs, beside their own whole matrix; and three losses on
slices of many chips, candidates gathered or in a ring. *All times are estimates*
(`jaxcon.planning.estimates`): of TPUs the compiler's cycles, of GPUs a roofline.
Written to `--out`: `compiled.json` and `compiled.md`; what is in the json already is not done again.
"""

import os

from jaxcon.planning.topologies import ENVIRONMENT

os.environ.update(ENVIRONMENT)

import argparse
import contextlib
import inspect
import itertools
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding

from benchmarks.compiled_page import page
from benchmarks.dense import LARGE, LOSSES, forms
from benchmarks.public import public_losses, required
from jaxcon import collectives
from jaxcon.planning.estimates import estimate
from jaxcon.planning.memory import memory_of
from jaxcon.planning.programs import executed
from jaxcon.planning.topologies import CHIPS, chip_of, devices, missing
from jaxcon.streaming import rules

Cell = dict[str, dict[str, Any]]
BFLOAT16 = {"precision": jnp.bfloat16}
SLICES = ("v5e:4x4", "v6e:4x4", "h100:8")
WHOLE = rules.Rule(whole_pairs=LARGE, whole_pairs_of_one_set=LARGE)
MOVED = re.compile(
    r"(all-gather|reduce-scatter|all-reduce|all-to-all|collective-permute)(-start)?$"
)


def found(step: Callable[..., Any], chip: str, *args: Any) -> dict[str, Any]:
    """Estimated milliseconds, MiB of temporaries, kernels and collectives of a compiled step.

    Nothing, if it does not fit into the chip's memory.
    """
    try:
        program = jax.jit(step).lower(*args).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {}
    text = program.as_text() or ""
    guess = estimate(text, chip_of(chip))
    counts: dict[str, int] = {}
    for op, times in executed(text):
        if moved := MOVED.match(op.opcode):
            counts[moved[1]] = counts.get(moved[1], 0) + times
    mib = round(memory_of(program).temporaries / 2**20, 1)
    return {"ms": round(guess.ms, 4), "mib": mib, "kernels": guess.kernels} | (
        {"collectives": counts} if counts else {}
    )


def on_one_chip(f: Callable[..., Any], chip: str, *shapes: tuple[Any, ...]) -> dict[str, Any]:
    """Compiles value and gradients of a loss of float arrays; integers are labels."""
    place = SingleDeviceSharding(devices(chip)[0])
    args = [jax.ShapeDtypeStruct(shape, dtype, sharding=place) for shape, dtype in shapes]
    floats = [k for k, a in enumerate(args) if jnp.issubdtype(a.dtype, jnp.floating)]
    return found(jax.value_and_grad(f, argnums=tuple(floats)), chip, *args)


def in_forms(chip: str, name: str, pairs: int, dim: int) -> Cell:
    """All forms of one loss at one size."""
    loss, dense, _ = LOSSES[name]
    z = (pairs, dim), jnp.float32
    rows = {"dense": on_one_chip(dense, chip, z, z)}
    for form, rule in forms(CHIPS[chip].platform, pairs).items():
        with contextlib.nullcontext() if rule is None else rules.in_force(rule):
            rows[form] = on_one_chip(partial(loss, **BFLOAT16), chip, z, z)
    return rows


def of_all(chip: str, name: str, pairs: int, dim: int) -> Cell:
    """One loss by default, and as a whole matrix of plain operations; both on so many rows."""
    loss = public_losses()[name]
    shapes = []
    for argument in required(loss):
        dtype = jnp.int32 if argument == "labels" else jnp.float32
        one = argument == "labels" or argument.startswith("log_std")
        shapes.append(((pairs,) if one else (pairs, dim), dtype))
    f = partial(loss, **BFLOAT16) if "precision" in inspect.signature(loss).parameters else loss
    cell = {"default": on_one_chip(f, chip, *shapes)}
    with rules.in_force(WHOLE):
        return cell | {"whole": on_one_chip(f, chip, *shapes)}


def on_a_slice(topology: str, name: str, pairs: int, dim: int) -> Cell:
    """One loss over all chips of a slice, with each exchange."""
    mesh = Mesh(np.array(devices(topology)), ("batch",))
    rows, whole = jax.P("batch"), jax.P()
    z = jax.ShapeDtypeStruct((pairs, dim), jnp.float32, sharding=NamedSharding(mesh, rows))
    cell = {}
    for form in ("default", "gather", "ring"):
        exchange = None if form == "default" else getattr(collectives, form)
        loss = partial(LOSSES[name][0], axis_name="batch", exchange=exchange, **BFLOAT16)
        step = jax.value_and_grad(lambda *z, loss=loss: loss(*z), argnums=(0, 1))
        mapped = jax.shard_map(step, mesh=mesh, in_specs=rows, out_specs=(whole, rows))
        cell[form] = found(mapped, topology, z, z)
    return cell


def over_pairs() -> list[str]:
    """The names of the losses that compare all rows with all."""
    others = ("koleo_loss", "triplet_loss")  # without a block_size
    return [
        name
        for name, loss in public_losses().items()
        if name in others or "block_size" in inspect.signature(loss).parameters
    ]


def cells(args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Cell]]]:
    """Yields the key of each cell that is asked for, and what makes it."""
    if "forms" in args.parts:
        for key in itertools.product(args.chips, args.losses, args.pairs, args.dims):
            yield f"forms {' '.join(map(str, key))}", partial(in_forms, *key)
    if "losses" in args.parts:
        for key in itertools.product(args.chips, over_pairs(), (8192, 32_768), args.dims):
            yield f"losses {' '.join(map(str, key))}", partial(of_all, *key)
    if "slices" in args.parts:
        here = [t for t in SLICES if t.partition(":")[0] in args.chips]
        for key in itertools.product(here, args.losses, (16_384, 65_536), args.dims):
            yield f"slices {' '.join(map(str, key))}", partial(on_a_slice, *key)


def main() -> None:
    """Compiles, prints and writes."""
    parser = argparse.ArgumentParser(description="Compiles the losses for accelerators.")
    here = [name for name, chip in CHIPS.items() if missing(chip.platform) is None]
    parts = ["forms", "losses", "slices"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--chips", nargs="*", choices=list(CHIPS), default=here)
    parser.add_argument("--losses", nargs="+", choices=list(LOSSES), default=list(LOSSES))
    parser.add_argument("--pairs", nargs="+", type=int, default=[256, 1024, 4096, 8192, 32768])
    parser.add_argument("--dims", nargs="+", type=int, default=[512])
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    args = parser.parse_args()
    if not args.chips:
        parser.error(
            "no compiler for accelerators is here; jaxcon/planning/topologies.py names them"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    written = args.out / "compiled.json"
    known = json.loads(written.read_text(encoding="utf-8")) if written.exists() else {}
    for key, make in cells(args):
        if key not in known:
            known[key] = make()
            print(key, known[key], flush=True)
            written.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    (args.out / "compiled.md").write_text(page(known), encoding="utf-8")


if __name__ == "__main__":
    main()
