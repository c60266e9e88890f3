"""What a loss's precision costs and saves: errors against float64, and estimated times.

    python -m benchmarks.precision                     # 3 minutes; with both compilers 45 on 2 cores

Errors are those of the program that an accelerator would run, with products rounded as there
(`benchmarks.emulated`); times are estimates for compiled programs (`benchmarks.compiled`), for the
chips whose compilers are here. Writes `precision.md` to `--out` and `benchmarks/precision.json` below
it; estimates that are in the json already are not made again.
"""

from benchmarks.compiled import on_one_chip  # isort: skip  (sets what jax reads when it starts)

import argparse
import itertools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.compiled_page import floor
from benchmarks.dense import LOSSES, NONE_WHOLE
from benchmarks.emulated import Multiply, emulated, passes, tf32
from benchmarks.precision_page import page
from jaxcon.planning.topologies import CHIPS, missing
from jaxcon.streaming import rules
from jaxcon.typing import Precision

TEMPERATURES = (0.5, 0.07, 0.02)
# By what the page calls them: what the loss is asked for, and what multiplies on the device.
KINDS: dict[str, tuple[Precision, Multiply | None]] = {
    "HIGHEST": (lax.Precision.HIGHEST, None),
    "HIGHEST, six passes": (lax.Precision.HIGHEST, passes(3)),
    "HIGH, TPU": (lax.Precision.HIGH, passes(2)),
    "HIGH, NVIDIA": (lax.Precision.HIGH, tf32),
    "bfloat16": (jnp.bfloat16, None),
}
ESTIMATED = {
    "HIGHEST": lax.Precision.HIGHEST,
    "HIGH": lax.Precision.HIGH,
    "bfloat16": jnp.bfloat16,
}
# One tile, as on an accelerator: its backward pass rounds as that does.
TILE = rules.everywhere(rules.LINES["tpu"], **NONE_WHOLE)

Found = tuple[float, np.ndarray]  # value, gradients [2 * pairs, dim]


def embeddings(kind: str, seed: int, pairs: int, dim: int) -> list[np.ndarray]:
    """Returns both sides of a batch in float32: `random`, or `aligned` as in a trained model.

    Aligned pairs share a centre and differ by noise of 0.3 to 2 times its size, evenly in the
    logarithm: cosines from 0.9 to 0.2.
    """
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((2, pairs, dim))
    if kind == "random":
        return list(noise.astype(np.float32))
    width = np.exp(rng.uniform(np.log(0.3), np.log(2), (pairs, 1)))
    return list((rng.standard_normal((pairs, dim)) + width * noise).astype(np.float32))


def rounded(sides: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the rows rounded to bfloat16; in float32, so that their gradients are not rounded."""
    return [np.asarray(jnp.asarray(z, jnp.bfloat16), np.float32) for z in sides]


def step(name: str, temperature: float, precision: Precision) -> Callable[..., Any]:
    """Returns value and gradients of a loss."""
    loss = partial(LOSSES[name][0], temperature=temperature, precision=precision)
    return jax.value_and_grad(loss, argnums=(0, 1))


def run(f: Callable[..., Any], sides: list[np.ndarray]) -> Found:
    """Returns value and gradients in float64."""
    value, gradients = f(*sides)
    return float(value), np.concatenate([np.asarray(g, np.float64) for g in gradients])


def errors(found: list[Found], exact: list[Found]) -> dict[str, float]:
    """Returns relative errors over some batches: of the values, and of the rows of the gradients."""
    of_values = [abs(f[0] - e[0]) / abs(e[0]) for f, e in zip(found, exact, strict=True)]
    of_rows = [
        np.linalg.norm(f[1] - e[1], axis=1) / np.linalg.norm(e[1], axis=1)
        for f, e in zip(found, exact, strict=True)
    ]
    return {
        "value": float(np.median(of_values)),
        "value_worst": float(np.max(of_values)),
        "gradient": float(np.median(of_rows)),
        "gradient_worst": float(np.max(of_rows)),
    }


def measure(name: str, temperature: float, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns a row for each kind of embeddings: errors as they come in float32 and in bfloat16."""
    like = jax.ShapeDtypeStruct((args.pairs, args.dim), jnp.float32)
    with rules.in_force(TILE):
        programs = {}
        for kind, (precision, multiply) in KINDS.items():
            f = step(name, temperature, precision)
            programs[kind] = jax.jit(f if multiply is None else emulated(f, multiply, like, like))
        in_full = jax.jit(step(name, temperature, lax.Precision.HIGHEST))
        rows = []
        for kind in ("random", "aligned"):
            batches = [embeddings(kind, s, args.pairs, args.dim) for s in range(args.seeds)]
            exact, found = {}, {}
            for dtype, sides in (("float32", batches), ("bfloat16", list(map(rounded, batches)))):
                with jax.enable_x64(True):
                    exact[dtype] = [run(in_full, [z.astype(float) for z in both]) for both in sides]
                found[dtype] = {
                    program: errors([run(f, both) for both in sides], exact[dtype])
                    for program, f in programs.items()
                }
            found["rounding"] = errors(exact["bfloat16"], exact["float32"])
            value = float(np.median([v for v, _ in exact["float32"]]))
            row = {"loss": name, "temperature": temperature, "embeddings": kind, "value": value}
            rows.append(row | found)
    return rows


def main() -> None:
    """Measures, compiles, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    here = [c for c in ("v5e", "h100") if missing(CHIPS[c].platform) is None]
    parser.add_argument("--pairs", type=int, default=1024, help="of the batches with errors")
    parser.add_argument("--dim", type=int, default=128, help="of these batches")
    parser.add_argument("--seeds", type=int, default=3, help="number of batches")
    parser.add_argument("--chips", nargs="*", choices=list(CHIPS), default=here)
    parser.add_argument("--compiled-pairs", nargs="+", type=int, default=[8192, 32768])
    parser.add_argument("--compiled-dim", type=int, default=512)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    args = parser.parse_args()
    written = args.out / "benchmarks" / "precision.json"
    written.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(written.read_text(encoding="utf-8")) if written.exists() else {}
    found = {"pairs": args.pairs, "dim": args.dim, "seeds": args.seeds, "errors": []}
    found["estimates"] = kept.get("estimates", {})
    for name, temperature in itertools.product(LOSSES, TEMPERATURES):
        found["errors"] += measure(name, temperature, args)
        print(found["errors"][-1], flush=True)
    for chip, pairs, name in itertools.product(args.chips, args.compiled_pairs, LOSSES):
        key = f"{chip} {name} {pairs} {args.compiled_dim}"
        if key not in found["estimates"]:
            cell: dict[str, Any] = {"floor": floor(chip, name, pairs, args.compiled_dim)}
            for kind, precision in ESTIMATED.items():
                loss = partial(LOSSES[name][0], precision=precision)
                z = (pairs, args.compiled_dim), jnp.float32
                cell[kind] = on_one_chip(loss, chip, z, z)
            found["estimates"][key] = cell
            print(key, cell, flush=True)
            written.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    written.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (args.out / "precision.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
