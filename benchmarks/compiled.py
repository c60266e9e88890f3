"""The losses as their compilers make them for accelerators: estimated time, memory and kernels.

    python -m benchmarks.compiled                      # some 40 minutes on 2 cores

No accelerator is needed, only the compilers; `jaxcon.planning.topologies` says how to install them.
Every cell is value and gradients of one loss for one chip, of bfloat16 products, compiled in several
forms: plain dense jnp, what `block_size=None` takes, and the forms that it could have taken. *All times
are estimates* (`jaxcon.planning.estimates`): of TPUs the compiler's cycles, of GPUs a roofline.
Written to `--out`: `compiled.json` and `compiled.md`; what is in the json already is not done again.
"""

import os

from jaxcon.planning.topologies import ENVIRONMENT

os.environ.update(ENVIRONMENT)

import argparse
import contextlib
import itertools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from benchmarks.dense import LOSSES, forms
from jaxcon.planning.estimates import estimate
from jaxcon.planning.memory import memory_of
from jaxcon.planning.topologies import CHIPS, devices, missing
from jaxcon.streaming import rules


def compiled(f: Callable[..., Any], chip: str, pairs: int, dim: int) -> dict[str, float]:
    """Estimated milliseconds, MiB of temporaries and kernels of value and gradients."""
    place = SingleDeviceSharding(devices(chip)[0])
    z = jax.ShapeDtypeStruct((pairs, dim), jnp.float32, sharding=place)
    program = jax.jit(jax.value_and_grad(f, argnums=(0, 1))).lower(z, z).compile()
    found = estimate(program.as_text(), CHIPS[chip])
    mib = memory_of(program).temporaries / 2**20
    return {"ms": round(found.ms, 4), "mib": round(mib, 1), "kernels": found.kernels}


def measure(chip: str, name: str, pairs: int, dim: int) -> dict[str, dict[str, float]]:
    """All forms of one loss at one size."""
    loss, dense, _ = LOSSES[name]
    rows = {"dense": compiled(dense, chip, pairs, dim)}
    for form, rule in forms(CHIPS[chip].platform, pairs).items():
        with contextlib.nullcontext() if rule is None else rules.in_force(rule):
            rows[form] = compiled(partial(loss, precision=jnp.bfloat16), chip, pairs, dim)
    return rows


def floor(chip: str, name: str, pairs: int, dim: int) -> float:
    """Milliseconds of the products alone, at the chip's full rate."""
    return LOSSES[name][2] * 2 * pairs**2 * dim / CHIPS[chip].rate / 1e9


def line_of(key: tuple[str, str, int, int], cell: dict[str, dict[str, float]]) -> str:
    """A line of the table."""
    default, dense = cell["default"], cell["dense"]
    best = min((f for f in cell if f != "default"), key=lambda f: cell[f]["ms"])
    values = [
        *(key[0], key[1], f"{key[2]:,}", key[3], f"{floor(*key):.3g}"),
        f"{dense['ms']:.3g} / {dense['mib']:,.0f}",
        f"{default['ms']:.3g} / {default['mib']:,.0f} ({default['kernels']:,.0f})",
        f"{best}: {cell[best]['ms']:.3g} / {cell[best]['mib']:,.0f}",
        f"{default['ms'] / min(c['ms'] for c in cell.values()):.2f}",
    ]
    return f"| {' | '.join(map(str, values))} |"


def page(cells: dict[str, Any]) -> str:
    """The page of all cells."""
    lines = [
        "# The losses as compiled for accelerators",
        "",
        "Value and gradients, products in bfloat16, compiled on a machine without accelerators: "
        "`python -m benchmarks.compiled`, jax "
        + jax.__version__
        + ". **Times are estimates**, of TPUs "
        "the compiler's own cycles, of the H100 a roofline of the kernels that its compiler makes, "
        "2.5 us a launch; memory is exact. Milliseconds / MiB of temporaries (kernels); floor: the "
        "products alone, at the full rate. Last column: `block_size=None` over the best form.",
        "",
        "| chip | loss | pairs | dim | floor | dense jnp | `block_size=None` | best form | ratio |",
        "|---|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    for key, cell in cells.items():
        chip, name, pairs, dim = key.split()
        lines.append(line_of((chip, name, int(pairs), int(dim)), cell))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compiles, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = [name for name, chip in CHIPS.items() if missing(chip.platform) is None]
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
    cells = json.loads(written.read_text(encoding="utf-8")) if written.exists() else {}
    for chip, name, pairs, dim in itertools.product(args.chips, args.losses, args.pairs, args.dims):
        key = f"{chip} {name} {pairs} {dim}"
        if key not in cells:
            cells[key] = measure(chip, name, pairs, dim)
            print(line_of((chip, name, pairs, dim), cells[key]), flush=True)
            written.write_text(json.dumps(cells, indent=1) + "\n", encoding="utf-8")
    order = itertools.product(
        CHIPS, LOSSES, sorted({int(key.split()[2]) for key in cells}), args.dims
    )
    keys = [" ".join(map(str, key)) for key in order]
    cells = {key: cells[key] for key in keys if key in cells} | cells
    (args.out / "compiled.md").write_text(page(cells), encoding="utf-8")


if __name__ == "__main__":
    main()
