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

from jaxcon import losses
from jaxcon.planning.estimates import estimate
from jaxcon.planning.memory import memory_of
from jaxcon.planning.topologies import CHIPS, devices, missing
from jaxcon.streaming import rules


def _unit(z: Any) -> Any:
    return (z / jnp.linalg.norm(z, axis=1, keepdims=True)).astype(jnp.bfloat16)


def _product(u: Any, v: Any) -> Any:
    return jnp.matmul(u, v.T, preferred_element_type=jnp.float32)


def dense_clip(z1: Any, z2: Any) -> Any:
    """CLIP as one writes it with jax.numpy."""
    s = _product(_unit(z1), _unit(z2)) / 0.07
    lse = jax.nn.logsumexp(s, axis=0) + jax.nn.logsumexp(s, axis=1)
    return jnp.mean(lse / 2 - jnp.diagonal(s))


def dense_ntxent(z1: Any, z2: Any) -> Any:
    """NT-Xent likewise."""
    u, n = _unit(jnp.concatenate([z1, z2])), len(z1)
    s = jnp.where(jnp.eye(2 * n, dtype=bool), -jnp.inf, _product(u, u) / 0.5)
    positive = jnp.concatenate([jnp.diagonal(s, n), jnp.diagonal(s, -n)])
    return jnp.mean(jax.nn.logsumexp(s, axis=1) - positive)


def dense_siglip(z1: Any, z2: Any) -> Any:
    """SigLIP likewise."""
    s = _product(_unit(z1), _unit(z2)) / 0.1 - 10.0
    sign = 2 * jnp.eye(len(z1)) - 1
    return -jnp.mean(jnp.sum(jax.nn.log_sigmoid(sign * s), axis=1))


# A loss, the same in plain jnp, and the products of N x N x dim that it cannot do without.
LOSSES: dict[str, tuple[Callable[..., Any], Callable[..., Any], int]] = {
    "clip": (losses.clip_loss, dense_clip, 4),
    "ntxent": (losses.ntxent_loss, dense_ntxent, 8),
    "siglip": (losses.siglip_loss, dense_siglip, 3),
}
LARGE = 2**60
NONE_WHOLE = {"whole_pairs": 0, "whole_pairs_of_one_set": 0}


def forms(chip: str, pairs: int) -> dict[str, rules.Rule | None]:
    """The forms to compile, by name: the rule that forces each; None: the default."""
    line = dict(rules.LINES)[CHIPS[chip].platform]
    found: dict[str, rules.Rule | None] = {"default": None}
    if pairs <= 8192:
        whole = {"whole_pairs": LARGE, "whole_pairs_of_one_set": LARGE}
        found["one matrix"] = rules.everywhere(line, **whole)
        one = rules.Line(line.block, line.lanes, panel_rows=line.panel_rows, tile_pairs=LARGE)
        found["one tile"] = rules.everywhere(one, **NONE_WHOLE)
    for block in (2048, 4096, 8192):
        if block <= pairs:
            squares = rules.Line(block, line.lanes, rounded=line.rounded)
            found[f"squares of {block:,}"] = rules.everywhere(squares, **NONE_WHOLE)
    for rows in (1024, 2048):
        if 4 * rows <= pairs:
            panels = rules.Line(
                line.block, line.lanes, panel_rows=rows, tile_pairs=2**26, rounded=line.rounded
            )
            found[f"panels of {rows:,}"] = rules.everywhere(panels, **NONE_WHOLE)
    return found


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
    for form, rule in forms(chip, pairs).items():
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
