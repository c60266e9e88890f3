"""Time and memory of the losses, forward and backward, beside their peers.

    pip install -r benchmarks/requirements.txt
    pip install --no-deps -r benchmarks/requirements-nodeps.txt
    python -m benchmarks.losses                        # all cells; about an hour on 2 cores
    python -m benchmarks.losses --pairs 256 1024 --dims 128

Each cell, a loss at a batch size and width, starts one process per implementation. It makes random
inputs, runs once to compile, and reports the median step, over rotated inputs, of ``--repeats`` and of
a second at least (of one where it takes over 20 s), and by how much the peak of its memory rose above
what it held before the first step. A process that fails, is killed for memory or takes too long is a
row that says so; larger batches of that implementation are then left out.

Written to ``--out``: ``losses.json``, ``losses.md`` and ``losses.png``. In the table,

    floor   time / (floor U / matmul rate), U = 2 rows^2 dim flop, and the floor the number of such
            products that the loss cannot do without: NT-Xent 2, SigLIP 3, CLIP 4 with nothing kept
    best    time / time of the fastest other implementation in the cell

"gradcache" is a perceptron under InfoNCE: the cell's dim is the width of its input, and the memory is
what the chunks are for (:mod:`benchmarks.towers`).
"""

import argparse
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.implementations import FLOOR, IMPLEMENTATIONS

MATMUL = "matmul"


def measure(loss: str, name: str, pairs: int, dim: int, repeats: int) -> dict[str, float]:
    """Median seconds of a step in this process, and the rise of its peak memory in MiB."""
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(2, pairs, dim)).astype(np.float32) for _ in range(3)]
    step = matmul_step() if name == MATMUL else IMPLEMENTATIONS[loss][name](0.1)
    step(*(z[:32] for z in batches[0]))  # what the first step of any size costs: threads, libraries
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(*batches[0])
    seconds: list[float] = []
    # For a second, and often enough: a fresh process is slow for some steps. Long ones settle at once.
    while len(seconds) < repeats or (sum(seconds) < 1 and len(seconds) < 100):
        start = time.perf_counter()
        step(*batches[len(seconds) % len(batches)])
        seconds.append(time.perf_counter() - start)
        if seconds[0] > 20:
            break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": float(np.median(seconds)), "mib": (peak - before) / 1024}


def matmul_step() -> Any:
    """The ceiling: x y^T y by panels of rows that stay in cache, twice U over the pairs' rows."""
    import jax
    import jax.numpy as jnp

    @jax.jit
    def step(x: Any, y: Any) -> Any:
        panels = x.reshape(-1, min(512, len(x)), x.shape[1])
        total = jnp.zeros_like(panels[0])
        return jax.lax.scan(lambda total, p: (total + (p @ y.T) @ y, None), total, panels)[0]

    return lambda x, y: jax.block_until_ready(step(x, y))


def run_child(cell: dict[str, Any], limit: float) -> dict[str, Any]:
    """One measurement in a process of its own: its figures, or why there are none."""
    command = [sys.executable, "-m", "benchmarks.losses", "--cell", json.dumps(cell)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return cell | {"failure": f"over {limit:.0f} s"}
    if done.returncode == 0:
        return cell | json.loads(done.stdout.splitlines()[-1])
    if done.returncode < 0:
        return cell | {"failure": f"killed by signal {-done.returncode}"}
    return cell | {"failure": reason(done.stderr)}


def reason(stderr: str) -> str:
    """The last line of a traceback, in few words."""
    signs = ("MemoryError", "RESOURCE_EXHAUSTED", "allocate memory", "bad_alloc", "Out of memory")
    if any(sign in stderr for sign in signs):
        return "out of memory"
    errors = [line for line in stderr.splitlines() if re.match(r"[\w.]+(Error|Exception)", line)]
    return errors[-1][:100] if errors else "failed without a message"


def run_all(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All cells, smallest batches first; an implementation that failed is not tried on larger ones."""
    rows: list[dict[str, Any]] = []
    failed: dict[tuple[str, str, int], str] = {}
    for dim in args.dims:
        for pairs in sorted(args.pairs):
            for loss in args.losses:
                for name in (MATMUL, *IMPLEMENTATIONS[loss]):
                    if args.names and name not in (MATMUL, *args.names):
                        continue
                    cell = {"loss": loss, "name": name, "pairs": pairs, "dim": dim}
                    if (loss, name, dim) in failed:
                        row = cell | {"failure": failed[loss, name, dim]}
                    else:
                        row = run_child(cell | {"repeats": args.repeats}, args.limit)
                    if "failure" in row:
                        failed[loss, name, dim] = row["failure"]
                    rows.append(row)
                    print(describe(row), flush=True)
    return rows


def describe(row: dict[str, Any]) -> str:
    """A row in one line of the terminal."""
    head = f"{row['loss']:8}{row['pairs']:>7} x {row['dim']:<5}{row['name']:26}"
    if "failure" in row:
        return head + row["failure"]
    return head + f"{1e3 * row['seconds']:10.1f} ms {row['mib']:10.0f} MiB"


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a markdown table."""
    lines = [
        "| loss | pairs | dim | implementation | ms | MiB | floor | best |",
        "|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        if row["name"] == MATMUL:
            continue
        head = f"| {row['loss']} | {row['pairs']} | {row['dim']} | {row['name']} |"
        if "failure" in row:
            lines.append(f"{head} {row['failure']} | | | |")
            continue
        cell = [r for r in rows if all(r[k] == row[k] for k in ("loss", "pairs", "dim"))]
        times = {r["name"]: r["seconds"] for r in cell if "seconds" in r}
        rate = 4 * row["pairs"] ** 2 * row["dim"] / times[MATMUL]
        floor, views = FLOOR.get(row["loss"], (0, 1))
        ideal = floor * 2 * (views * row["pairs"]) ** 2 * row["dim"] / rate
        share = f"{row['seconds'] / ideal:.2f}" if ideal else ""
        others = [t for n, t in times.items() if n != MATMUL and not n.startswith("jaxcon")]
        best = f"{row['seconds'] / min(others):.2f}" if others else ""
        figures = f"{1e3 * row['seconds']:.1f} | {row['mib']:.0f} | {share}"
        lines.append(f"{head} {figures} | {best} |")
    return "\n".join(lines) + "\n"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Time, memory and share of the matmul rate against the batch size."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    panels = sorted({(r["loss"], r["dim"]) for r in rows})
    fig, axes = plt.subplots(len(panels), 2, figsize=(11, 3.4 * len(panels)), squeeze=False)
    for (loss, dim), (left, right) in zip(panels, axes, strict=True):
        done = [r for r in rows if (r["loss"], r["dim"]) == (loss, dim) and "seconds" in r]
        for name in dict.fromkeys(r["name"] for r in done):
            mine = [r for r in done if r["name"] == name]
            pairs = [r["pairs"] for r in mine]
            width = 2.2 if name.startswith("jaxcon") else 1.0
            if name != MATMUL:
                left.loglog(pairs, [r["seconds"] for r in mine], "o-", label=name, lw=width)
                right.loglog(pairs, [max(r["mib"], 1) for r in mine], "o-", lw=width)
        left.set(title=f"{loss}, dim {dim}: seconds", xlabel="pairs")
        right.set(title="peak memory, MiB", xlabel="pairs")
        left.legend(fontsize=7)
    fig.tight_layout()
    fig.savefig(path, dpi=110)


def main() -> None:
    """Runs one cell for a parent process, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--losses", nargs="+", default=list(IMPLEMENTATIONS), choices=IMPLEMENTATIONS
    )
    parser.add_argument("--names", nargs="+", help="these implementations alone")
    parser.add_argument("--pairs", nargs="+", type=int, default=[256, 1024, 4096, 16384])
    parser.add_argument("--dims", nargs="+", type=int, default=[128, 512])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one process")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        print(json.dumps(measure(**json.loads(args.cell))))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    rows = run_all(args)
    (args.out / "losses.json").write_text(json.dumps(rows, indent=1) + "\n")
    head = (
        "# Losses, forward and backward\n\n"
        f"Median of {args.repeats} steps or more, float32, {platform.machine()}, "
        f"{os.cpu_count()} cores. What the columns mean: `benchmarks/losses.py`.\n\n"
    )
    (args.out / "losses.md").write_text(head + table(rows))
    plot(rows, args.out / "losses.png")


if __name__ == "__main__":
    main()
