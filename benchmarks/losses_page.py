"""Writes the rows of `benchmarks.losses` as files: numbers, a page with a table, and a figure."""

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.implementations import FLOOR

MATMUL = "matmul"  # the name of the rows that hold the ceiling


def share_of_floor(row: dict[str, Any], rows: list[dict[str, Any]]) -> float | None:
    """Returns time over that of the products the loss cannot do without; None where unknown."""
    of_cell = {r["name"]: r["ms"] for r in same_cell(row, rows)}
    if MATMUL not in of_cell or row["loss"] not in FLOOR:
        return None
    floor, views = FLOOR[row["loss"]]
    return row["ms"] / (floor * views**2 / 2 * of_cell[MATMUL])  # the matmul step is 2 U


def share_of_best(row: dict[str, Any], rows: list[dict[str, Any]]) -> float | None:
    """Returns time over that of the fastest other implementation of its kind; None without one."""

    def kind(name: str) -> bool:
        return name.endswith("learned")

    others = [
        r["ms"]
        for r in same_cell(row, rows)
        if r["name"] != MATMUL
        and not r["name"].startswith("jaxcon")
        and kind(r["name"]) == kind(row["name"])
    ]
    return row["ms"] / min(others) if others else None


def same_cell(row: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows measured in the same cell as a row."""
    keys = ("loss", "pairs", "dim")
    return [r for r in rows if "ms" in r and all(r[k] == row[k] for k in keys)]


def table(rows: list[dict[str, Any]]) -> str:
    """Formats the rows as a markdown table."""
    lines = [
        "| loss | pairs | dim | implementation | ms | processes | MiB | floor | best | measured |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        if row["name"] == MATMUL:
            continue
        head = f"| {row['loss']} | {row['pairs']:,} | {row['dim']} | {row['name']} |"
        if "failure" in row:
            lines.append(f"{head} {row['failure']} | | | | | {row['measured']} |")
            continue
        shares = (share_of_floor(row, rows), share_of_best(row, rows))
        texts = ["" if share is None else f"{share:.2f}" for share in shares]
        figures = (f"{row['ms']:.1f}", str(len(row["each_ms"])), f"{row['mib']:.0f}", *texts)
        lines.append(f"{head} {' | '.join([*figures, row['measured']])} |")
    return "\n".join(lines) + "\n"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Plots time, memory and share of the matmul rate against the batch size."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    panels = sorted({(r["loss"], r["dim"]) for r in rows})
    names = dict.fromkeys(r["name"] for r in rows if r["name"] != MATMUL)
    colours = dict(zip(names, plt.get_cmap("tab20").colors, strict=False))  # one name, one colour
    fig, axes = plt.subplots(len(panels), 3, figsize=(15, 3.6 * len(panels)), squeeze=False)
    for (loss, dim), (time, memory, rate) in zip(panels, axes, strict=True):
        done = [
            r
            for r in sorted(rows, key=lambda r: r["pairs"])
            if (r["loss"], r["dim"]) == (loss, dim) and "ms" in r and r["name"] != MATMUL
        ]
        for name in dict.fromkeys(r["name"] for r in done):
            mine = [r for r in done if r["name"] == name]
            pairs = [r["pairs"] for r in mine]
            style: dict[str, Any] = {"color": colours[name], "marker": "o", "ms": 4}
            style["lw"] = 2.2 if name.startswith("jaxcon") else 1.0
            time.loglog(pairs, [r["ms"] for r in mine], label=name, **style)
            memory.loglog(pairs, [max(r["mib"], 1) for r in mine], **style)
            if loss in FLOOR:
                floors = [share_of_floor(r, rows) or np.nan for r in mine]
                rate.semilogx(pairs, [100 / share for share in floors], **style)
        time.set(title=f"{loss}, dim {dim}: milliseconds", xlabel="pairs")
        memory.set(title="memory that a step adds, MiB", xlabel="pairs")
        if loss in FLOOR:
            rate.set(title="share of the matmul rate, %", xlabel="pairs")
        else:
            rate.set_axis_off()
        sizes = sorted({r["pairs"] for r in done})
        for ax in (time, memory, rate):
            ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
            ax.xaxis.minorticks_off()
        time.legend(fontsize=7)
    fig.tight_layout()
    fig.savefig(path, dpi=80)
    plt.close(fig)


def write(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Writes the files for the rows so far."""
    (args.out / "losses.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    head = (
        "# Losses, forward and backward\n\n"
        f"Median of {args.repeats} steps or more in the fastest of the processes (column `processes`), "
        f"float32, {platform.machine()}, {os.cpu_count()} cores. "
        "`MiB`: what a step adds. The temperature is a constant unless marked learned. A cell was "
        "measured in one go; other days are other machines, and the code of those days.\n\n"
        "`floor`: time over that of the products that the loss cannot do without, at the matrix rate "
        "of the same run: 2 U for NT-Xent over its 2 N rows, 3 U for SigLIP, 4 U for CLIP, U = "
        "2 rows^2 dim. CLIP's assumes that no matrix is kept; keeping it takes 3 U, and can give less "
        "than 1. "
        "The plot shows its inverse, the share of the matmul rate. `best`: time over that of the "
        "fastest other implementation. `gradcache`: a perceptron under InfoNCE, in chunks that "
        "save what the encoder keeps; for one so small, that is nothing at 256 pairs.\n\n"
    )
    (args.out / "losses.md").write_text(head + table(rows), encoding="utf-8")
    plot(rows, args.out / "losses.png")
