"""One matrix, kept tiles, or tiles: which is fastest at which size, and which one None chooses.

    python -m benchmarks.forms                         # about ten minutes on 2 cores

The thresholds of `block_size=None` in `jaxcon.streaming.rules` come from this table. Writes
`forms.json` and `forms.md` to `--out`: median milliseconds of value and gradients.
"""

import argparse
import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.timing import median_ms
from jaxcon import losses
from jaxcon.streaming import rules

LOSSES = {
    "NT-Xent": partial(losses.ntxent_loss, temperature=0.1),
    "CLIP": partial(losses.clip_loss, temperature=0.1),
    "SigLIP": losses.siglip_loss,
}
ALL = 2**60
# What forces a form: the thresholds for the whole matrix, for kept tiles and for one such tile, and
# block_size.
FORMS: dict[str, tuple[int, int, int, int | None]] = {
    "one matrix": (ALL, ALL, 0, None),
    "one tile": (0, ALL, ALL, None),
    "kept": (0, ALL, 0, None),
    "tiles of 256": (0, 0, 0, 256),
    "tiles of 512": (0, 0, 0, 512),
    "tiles of 1024": (0, 0, 0, 1024),
}


def measure(loss: str, form: str, batches: list[Any], repeats: int) -> float:
    """Measures the median milliseconds of a step in that form."""
    dense, kept, tile, block_size = FORMS[form]
    f = partial(LOSSES[loss], block_size=block_size)
    line = dataclasses.replace(rules.LINES["cpu"], kept_pairs=kept, tile_pairs=tile)
    # Tiles normalize the rows that they read, as those of large batches do.
    limits = {"whole_pairs": dense, "whole_pairs_of_one_set": dense, "copied_entries": kept}
    with rules.in_force(rules.everywhere(line, **limits)):
        step = jax.jit(jax.value_and_grad(f, argnums=(0, 1)))
        return median_ms(lambda k: step(*batches[k % len(batches)]), repeats)


def chosen(loss: str, pairs: int) -> str:
    """Returns the form that `block_size=None` takes; SigLIP's "kept" only normalizes first."""
    n, m = (2 * pairs, None) if loss == "NT-Xent" else (pairs, pairs)
    if rules.current().whole(n, m):
        return "one matrix"
    line = rules.LINES["cpu"]
    cut = line.cut(n, m)
    if not cut.keep:
        return f"tiles of {line.block}"
    return "one tile" if cut.rows == n and loss != "SigLIP" else "kept"


def table(rows: list[dict[str, Any]]) -> str:
    """Formats the figures as a markdown table, with the default of each line in bold."""
    lines = [
        f"| loss | dim | pairs | {' | '.join(FORMS)} |",
        "|---|---:|---:|" + "---:|" * len(FORMS),
    ]
    for row in rows:
        default = chosen(row["loss"], row["pairs"])
        texts = [f"{row[form]:.2f}" for form in FORMS]
        texts = [f"**{t}**" if f == default else t for f, t in zip(FORMS, texts, strict=True)]
        lines.append(f"| {row['loss']} | {row['dim']} | {row['pairs']:,} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = [128, 256, 300, 362, 512, 1024, 1100, 1440, 2048, 3000, 4096]
    parser.add_argument("--pairs", nargs="+", type=int, default=sizes)
    parser.add_argument("--dims", nargs="+", type=int, default=[128, 512])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for loss in LOSSES:
        for dim in args.dims:
            for pairs in args.pairs:
                z = np.random.default_rng(0).normal(size=(3, 2, pairs, dim)).astype(np.float32)
                times = {form: measure(loss, form, list(z), args.repeats) for form in FORMS}
                rows.append({"loss": loss, "dim": dim, "pairs": pairs, **times})
                print(rows[-1], flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "forms.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    head = (
        "# One matrix, kept tiles, or tiles\n\n"
        f"Milliseconds of value and gradients, float32, CPU, median of {args.repeats} steps or "
        "more: `python -m benchmarks.forms`. Bold: what `block_size=None` takes. NT-Xent compares "
        "twice as many rows as there are pairs. `one tile` and `kept` are kept for the backward "
        "pass; blocks of `kept` are even, of at most 512. SigLIP keeps nothing: there both have the "
        "rows normalized before the sweep, in blocks of at most 1,024. Two views of one set of rows, "
        "as in NT-Xent, have no `one tile`.\n\n"
    )
    (args.out / "forms.md").write_text(head + table(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
