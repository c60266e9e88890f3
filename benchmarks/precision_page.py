"""The page of `benchmarks.precision`."""

from typing import Any

import jax

_HEAD = """\
# In what precision a loss multiplies

The products of all rows with all rows are most of a loss's work. `precision=` says how they are taken,
in the experiments the flag `--loss-precision`:

| `precision` | flag | TPU | NVIDIA GPU | CPU |
|---|---|---|---|---|
| `jax.lax.Precision.HIGHEST` | `highest` | six passes of bfloat16 | float32 | float32 |
| `jax.lax.Precision.HIGH` | `high` | three passes of bfloat16 | TF32: 10 bits of mantissa | float32 |
| `jnp.bfloat16` | `bf16` | one pass: rows of 7 bits, sums in float32 | the same | the same |

Whichever it is, rows are normalized, a pair's own logit is computed, and exponentials are summed in
float32. (On GPUs the exponentials of bfloat16 rows are written in bfloat16, which is not counted here.)

"""
_DEFAULT = """\
## The default

`precision=None`, the default, is `HIGHEST` for float32 embeddings, and `jnp.bfloat16` where all
embeddings come in bfloat16. `--loss-precision` follows `--precision` likewise.

The reason is in the table of gradients of bfloat16 embeddings. They were rounded before the loss saw
them: "rounding" is what this changed in the gradient, compared with float32 embeddings. Its last column
is what products in bfloat16 add. Typically that is, compared with the rounding,

{ratios}

And the gradient that goes back to embeddings in bfloat16 is rounded once more. Exact products take
several times as long (last table), and gain little: at temperatures near 0.02, where it may matter, ask
for `HIGH`. For float32 embeddings nothing was rounded before: there products in bfloat16 would be the
largest error, so they must be asked for.

`HIGH` is wrong by {high} of the gradient of a row at worst on a TPU, in half the passes of `HIGHEST`
(emulated, six passes are wrong by {highest}); on an NVIDIA GPU, as TF32, by {tf32}.

With `jnp.bfloat16`, `gaussian_clip_loss` rounds the rows to it and multiplies at `HIGH`: it takes
squared distances, which are differences, and in these the rounding of products would count for more
than that of the rows.

"""
_ERRORS = """\
## Errors

Relative errors of value and gradient against the same loss in float64: {seeds} batches of {pairs:,}
pairs of width {dim}. *Random* rows are normal; *aligned* pairs have cosines from 0.2 to 0.9, as in a
model that has learned. A cell is typical / worst: for gradients, the median and the largest over all
rows of the length of the error, divided by that of the row's gradient; for values, the same over the
batches.

**These are emulations**, by `python -m benchmarks.precision` on a CPU, which multiplies float32 as it
is: in the program that an accelerator would run, the operands of every product are split into two parts
of bfloat16, or rounded to 10 bits for TF32; products and sums are then in float32. Only what is called
bfloat16 is not emulated: a CPU does the same, and only adds in another order.

"""
_TIMES = """\
## Times

Milliseconds for value and gradients, **estimated**, nothing measured (jax {version}). Of the v5e they
are its compiler's own cycles. Of the H100 they are a roofline of its compiler's kernels, and rest on
assumed rates: 790 TFLOP/s in bfloat16, half of that in TF32 and 67 in float32, which is near its data
sheet; the compiled program only tells which of them a product takes. *Floor*: the products alone, in
bfloat16 at the full rate.

"""


def page(found: dict[str, Any]) -> str:
    """Formats what was found as markdown."""
    rows = found["errors"]

    def worst(kind: str) -> str:
        return _digit(max(row["float32"][kind]["gradient_worst"] for row in rows))

    text = _HEAD + _DEFAULT.format(
        ratios=_ratios(rows),
        high=worst("HIGH, TPU"),
        highest=worst("HIGHEST, six passes"),
        tf32=worst("HIGH, NVIDIA"),
    )
    text += _ERRORS.format(**found)
    for dtype in ("float32", "bfloat16"):
        for what in ("gradient", "value"):
            text += f"### Error of the {what}, {dtype} embeddings\n\n{_table(rows, dtype, what)}\n"
    text += _TIMES.format(version=jax.__version__) + _estimates(found["estimates"])
    return text


def _ratios(rows: list[dict[str, Any]]) -> str:
    """A line a temperature: by how much products in bfloat16 exceed the rounding of the rows."""
    most: dict[float, float] = {}
    for row in rows:
        ratio = row["bfloat16"]["bfloat16"]["gradient"] / row["rounding"]["gradient"]
        most[row["temperature"]] = max(ratio, most.get(row["temperature"], 0))
    return "\n".join(
        f"- at temperature {t}: at most {ratio:.2g} times as much, {(1 + ratio**2) ** 0.5:.3g} together"
        for t, ratio in most.items()
    )


def _table(rows: list[dict[str, Any]], dtype: str, what: str) -> str:
    kinds = ["HIGHEST", "HIGH, TPU", "HIGH, NVIDIA", "bfloat16"]
    before = ["rounding"] if dtype == "bfloat16" else []
    heads = ["loss", "temperature", "embeddings", "value", *before, *kinds]
    lines = [_line(heads), "|---|---:|---|" + "---:|" * (len(heads) - 3)]
    for row in rows:
        cells = [row["rounding"]] if before else []
        cells += [row[dtype][kind] for kind in kinds]
        of = (row["loss"], row["temperature"], row["embeddings"], f"{row['value']:.2g}")
        both = (f"{_digit(cell[what])} / {_digit(cell[what + '_worst'])}" for cell in cells)
        lines.append(_line([*of, *both]))
    return "\n".join(lines) + "\n"


def _estimates(cells: dict[str, Any]) -> str:
    lines = [
        _line(["chip", "loss", "pairs", "width", "floor", "HIGHEST", "HIGH", "bfloat16"]),
        "|---|---|" + "---:|" * 6,
    ]
    for key, cell in cells.items():
        chip, name, pairs, dim = key.split()
        times = (f"{cell[kind]['ms']:.3g}" for kind in ("HIGHEST", "HIGH", "bfloat16"))
        lines.append(_line([chip, name, f"{int(pairs):,}", dim, f"{cell['floor']:.3g}", *times]))
    return "\n".join(lines) + "\n"


def _digit(error: float) -> str:
    return f"{error:.0e}".replace("e-0", "e-")


def _line(cells: list[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
