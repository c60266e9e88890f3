"""Time and temporary memory of every public loss, value and gradients, alongside optax's NT-Xent.

    python -m benchmarks.every_loss

Writes `every_loss.json` and `every_loss.md` to `--out`. Temporaries are those of the compiled
program (`memory_analysis()`), which are exact; time is the median over steps on rotating random inputs.
A program that needs more than `--memory` is not run.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.implementations import optax_loss
from benchmarks.public import public_losses, required
from benchmarks.timing import median_ms
from jaxcon.planning.memory import memory_of


def arguments(loss: Callable[..., Any], rows: int, dim: int, seed: int) -> tuple[tuple, tuple]:
    """Returns random embeddings to differentiate, and the loss's other positional arguments."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(rows, dim))
    embeddings, others = [], []
    for name in required(loss):
        if name == "labels":
            others.append(jnp.asarray(rng.integers(0, rows // 8, rows), jnp.int32))
        elif name.startswith("log_std"):
            embeddings.append(jnp.asarray(0.1 * rng.normal(size=rows), jnp.float32))
        else:
            views = centre + 0.5 * rng.normal(size=(rows, dim))
            embeddings.append(jnp.asarray(views, jnp.float32))
    return tuple(embeddings), tuple(others)


def measure(loss: Callable[..., Any], args: argparse.Namespace) -> dict[str, float]:
    """Measures the MiB of temporaries and, where they fit, the median milliseconds of a step."""
    batches = [arguments(loss, args.rows, args.dim, seed) for seed in range(3)]
    step = jax.jit(jax.value_and_grad(lambda z, rest: loss(*z, *rest)))
    program = step.lower(*batches[0]).compile()
    mib = memory_of(program).temporaries / 2**20
    if mib > args.memory:
        return {"mib": mib}
    ms = median_ms(lambda k: program(*batches[k % len(batches)]), args.repeats)
    return {"mib": mib, "ms": ms}


def table(rows: dict[str, dict[str, float]]) -> str:
    """Formats the figures as a markdown table."""
    lines = ["| loss | ms | temporaries, MiB |", "|---|---:|---:|"]
    for name, row in rows.items():
        ms = f"{row['ms']:.1f}" if "ms" in row else "not run: too large"
        lines.append(f"| `{name}` | {ms} | {row['mib']:,.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2048, help="rows of each argument")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--memory", type=float, default=12_000.0, help="MiB that may be used")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    args = parser.parse_args()
    functions = public_losses() | {"optax.losses.ntxent": partial(optax_loss, temperature=0.5)}
    rows = {}
    for name, loss in functions.items():
        rows[name] = measure(loss, args)
        print(name, rows[name], flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "every_loss.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    head = (
        "# Every loss, value and gradients\n\n"
        f"{args.rows:,} rows of width {args.dim}, float32, default settings, CPU, median of "
        f"{args.repeats} steps or more: `python -m benchmarks.every_loss`. One matrix of all pairs is "
        f"{4 * args.rows**2 / 2**20:,.0f} MiB, and four times that for the losses whose candidates "
        "are both views.\n\n"
    )
    (args.out / "every_loss.md").write_text(head + table(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
