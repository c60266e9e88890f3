"""Time and memory of the losses, forward and backward, compared with their peers.

    pip install -r benchmarks/requirements.txt
    pip install --no-deps -r benchmarks/requirements-nodeps.txt
    python -m benchmarks.losses                        # all cells; two hours on 2 cores
    python -m benchmarks.losses --pairs 256 1024 --dims 128
    python -m benchmarks.losses --resume               # go on with the cells that have no row yet

Each cell, a loss at a batch size and width, starts a process per implementation, or `--processes` of
each in turn if a step takes less than a second, because the same program can be up to 50 % slower in
one process than in the next. The fastest process counts: whatever slows down the others is not the
program. A process makes random inputs, runs once to compile, and reports the median over `--repeats`
steps, or over as many as fill a second (a single one if it takes over 20 s), on rotating inputs. It
also reports the memory that a step adds: in JAX the temporaries and gradients of the compiled program,
in torch the growth of the process during one more step. A process that fails, is killed for memory or
takes too long becomes a row that says so; larger batches of that implementation are then left out. If
values or gradient lengths differ within a cell, that is an error: they would not be the same loss.

Writes `losses.json`, `losses.md` and `losses.png` to `--out` after every cell. A cell is measured in
one go, so its ratios come from one run even if the other cells were resumed. In the table,

    floor   time / (floor U / matmul rate), where U = 2 rows^2 dim flop and floor is the number of such
            products that the loss cannot do without: NT-Xent 2, SigLIP 3, CLIP 4 with nothing kept
    best    time / time of the fastest other implementation in the cell, learned with learned

"gradcache" is a perceptron under InfoNCE: the cell's dim is the width of its input, and memory is
what the chunks save (`benchmarks.towers`).
"""

import argparse
import datetime
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.implementations import IMPLEMENTATIONS
from benchmarks.losses_page import MATMUL, write
from benchmarks.steps import Step, compiled_mib
from benchmarks.timing import median_ms

SETTLES = 1000.0  # ms, of a step for which one process is enough
AGREE = 1e-3  # relative, of values and of lengths of gradients in float32


def measure(loss: str, name: str, pairs: int, dim: int, repeats: int) -> dict[str, float]:
    """Measures a step in this process: milliseconds, MiB, value and length of the gradients."""
    rng = np.random.default_rng(0)
    step = matmul_step() if name == MATMUL else IMPLEMENTATIONS[loss][name](0.1)
    batches = [
        [step.put(rng.standard_normal((pairs, dim), np.float32)) for _ in range(2)]
        for _ in range(3)
    ]
    value, gradients = step.run(*batches[0])
    squares = [float((np.asarray(g, np.float64) ** 2).sum()) for g in gradients[:2]]
    del gradients
    ms = median_ms(lambda k: step.run(*batches[k % len(batches)]), repeats)
    return {
        "ms": ms,
        "mib": step.mib(*batches[0]),
        "value": float(value),
        "length": sum(squares) ** 0.5,
    }


def matmul_step() -> Step:
    """Makes the ceiling: x y^T y by panels of rows that stay in cache, twice U over the pairs' rows."""
    import jax
    import jax.numpy as jnp

    @jax.jit
    def step(x: Any, y: Any) -> Any:
        size = max(size for size in range(1, min(512, len(x)) + 1) if len(x) % size == 0)
        panels = x.reshape(-1, size, x.shape[1])
        total = jnp.zeros_like(panels[0])
        return jax.lax.scan(lambda total, p: (total + (p @ y.T) @ y, None), total, panels)[0]

    return Step(
        jax.device_put,
        lambda x, y: (0.0, [jax.block_until_ready(step(x, y))]),
        lambda x, y: compiled_mib(step, x, y),
    )


def run_child(cell: dict[str, Any], limit: float) -> dict[str, Any]:
    """Runs one measurement in a process of its own; returns its figures, or why there are none."""
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
    """Returns the last line of a traceback, in a few words."""
    signs = ("MemoryError", "RESOURCE_EXHAUSTED", "allocate memory", "bad_alloc", "Out of memory")
    if any(sign in stderr for sign in signs):
        return "out of memory"
    errors = [line for line in stderr.splitlines() if re.match(r"[\w.]+(Error|Exception)", line)]
    return errors[-1][:100] if errors else "failed without a message"


def cells(args: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """Yields loss, pairs and dim of every cell, smallest batches first."""
    for dim in args.dims:
        for pairs in sorted(args.pairs):
            for loss in args.losses:
                yield loss, pairs, dim


def run_cell(
    loss: str, pairs: int, dim: int, args: argparse.Namespace, before: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Returns the rows of a cell; skips an implementation that failed on a smaller one."""
    failed = {
        row["name"]: f"not tried: {row['failure']} at {row['pairs']}"
        for row in before
        if (row["loss"], row["dim"]) == (loss, dim)
        and row["pairs"] < pairs
        and "failure" in row
        and not row["failure"].startswith("not tried")
    }
    names = [MATMUL, *(n for n in IMPLEMENTATIONS[loss] if not args.names or n in args.names)]
    today = datetime.date.today().isoformat()
    cell = {"loss": loss, "pairs": pairs, "dim": dim, "repeats": args.repeats}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for name in set(names).intersection(failed):
        found[name].append(cell | {"name": name, "failure": failed[name]})
    for _ in range(args.processes):
        for name, mine in found.items():
            if all(row.get("ms", np.inf) < SETTLES for row in mine):
                mine.append(run_child(cell | {"name": name}, args.limit))
                print(describe(mine[-1]), flush=True)
    rows = [of_processes(mine) | {"measured": today} for mine in found.values()]
    check_agreement([row for row in rows if "value" in row and row["name"] != MATMUL])
    return rows


def of_processes(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Merges the rows of one implementation's processes: the fastest, with the times of all."""
    for row in rows:
        if "failure" in row:
            return row
    return min(rows, key=lambda row: row["ms"]) | {"each_ms": [row["ms"] for row in rows]}


def check_agreement(rows: list[dict[str, Any]]) -> None:
    """Raises ValueError if two rows of a cell are not of the same loss."""
    for row in rows[1:]:
        for key in ("value", "length"):
            if abs(row[key] - rows[0][key]) > AGREE * abs(rows[0][key]):
                raise ValueError(
                    f"{row['loss']}, {row['pairs']} x {row['dim']}: {key} is {row[key]:.6g} in "
                    f"{row['name']} and {rows[0][key]:.6g} in {rows[0]['name']}"
                )


def describe(row: dict[str, Any]) -> str:
    """Formats a row as one line for the terminal."""
    head = f"{row['loss']:8}{row['pairs']:>7} x {row['dim']:<5}{row['name']:26}"
    if "failure" in row:
        return head + row["failure"]
    return head + f"{row['ms']:10.1f} ms {row['mib']:10.0f} MiB"


def main() -> None:
    """Runs one cell for a parent process, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--losses", nargs="+", default=list(IMPLEMENTATIONS), choices=IMPLEMENTATIONS
    )
    parser.add_argument("--names", nargs="+", help="only these implementations")
    parser.add_argument("--pairs", nargs="+", type=int, default=[256, 1024, 4096, 16384])
    parser.add_argument("--dims", nargs="+", type=int, default=[128, 512])
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one process")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--resume", action="store_true", help="keep the cells already in --out")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        print(json.dumps(measure(**json.loads(args.cell))))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    kept = args.out / "losses.json"
    rows = json.loads(kept.read_text(encoding="utf-8")) if args.resume and kept.exists() else []
    for cell in cells(args):
        there = {r["name"] for r in rows if (r["loss"], r["pairs"], r["dim"]) == cell}
        wanted = [name for name in IMPLEMENTATIONS[cell[0]] if not args.names or name in args.names]
        if not there.issuperset(wanted):  # all of it again: ratios are of one run
            rows = [r for r in rows if (r["loss"], r["pairs"], r["dim"]) != cell]
            rows += run_cell(*cell, args, rows)
            write(rows, args)
    write(rows, args)


if __name__ == "__main__":
    main()
