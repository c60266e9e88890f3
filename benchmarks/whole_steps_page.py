"""The page of `benchmarks.whole_steps`: its tables as markdown."""

from typing import Any

import jax

Cells = dict[str, dict[str, dict[str, Any]]]
INTRODUCTION = """\
# Whole training steps as compiled for TPUs

Images of 224 pixels, bfloat16, whole steps of an experiment from the pixels to the optimizer, compiled
on a machine without accelerators: `python -m benchmarks.whole_steps`, jax {version}. **Times are
estimates**: the compiler's own cycles for the computation of one chip, without what sending takes.
Memory and products are exact. Share of peak: the products of a chip over what it could do in that time.
Of collectives, how many there are and what a chip sends in them. Each line is the same step with
another version of the code, the last one with this one.
"""
HEADS = {
    "simclr": "SimCLR, `--encoder={encoder} --optimizer=lars`, {batch:,} images on {slice}",
    "simclr, crops": "The same on crops that the host made, {batch:,} images on {slice}",
    "clip": "CLIP, `--encoder={encoder} --text-encoder=base`, {batch:,} pairs on {slice}",
    "clip, one block": "CLIP with one block of each encoder, {batch:,} pairs on one chip",
}
# What the compiled programs show, of jax 0.10.2.
NOTES = {
    "simclr": """\
"Before", the variance was a pass of its own over the output of every convolution, after a reduction
between chips, and its gradient another one: 28 ms of kernels that only sum. Now both sums are in the
convolution that makes the output, and those of the gradient in the one that makes the gradient; a blur,
7 ms of shifts, is two products of 0.5 ms. 30 % of peak would be 52 ms. What is left is memory: the
kernels of this program read and write 37 GB, 45 ms at the full 0.82 TB/s of the chip, and to that the
compiler adds about 0.7 ms for each 100 million numbers in bfloat16 that a kernel goes through, whatever
it computes of them. A block cannot do with fewer kernels than it has: three convolutions and a sum
forward, twice as many convolutions backward. Of what a kernel computes, fewer roundings and a sum of x
in place of x - mean were tried alone, and change nothing.
""",
    "simclr, crops": """\
The batch holds two crops of every image in uint8, 18 MiB a chip where whole images are 9. The step only
changes their colours, at strength 1 and in an order that each view draws: 2.9 ms, 3.8 % of the step,
where crop, flip and colours, at strength 0.5 and in one order, were 5.0. Alone, in front of a single
convolution, colours are an estimated 2.1 ms: 0.7 of it products of the blur, the rest passes over the
channels, without a branch, a sort or a gather. Both views in one program were 2.9, for another layout
of their pixels.
""",
    "clip": "",
    "clip, one block": """\
The whole step of 4,096 pairs on v5e:4x4 was not compiled in the time there was: `--steps clip` does. A
block of both encoders is 48 ms, so that twelve would be about 590 ms, 27 % of peak for their 31 TFLOP;
40 % would be 400. Views were 37 ms: pixels read one by one, of two views of which one was dropped.
Attention of an image block is 31 ms of those 48, where its products alone would be 5: kernels that go
through 256 x 12 x 196 x 196 scores, five of 1.3 to 2.6 ms, and 9 ms of copies between rows of tokens
and rows of heads. Scores in float32, where they were rounded to bfloat16, are 2.7 ms of the 31. Tried
and left out: scores computed again for the gradient (6 ms more, 256 x 12 x 196 x 196 numbers less to
keep), and then sums of weights by a column of ones beside the values (2 ms less).
""",
}


def page(cells: Cells) -> str:
    """Formats all figures, keyed by step and label."""
    text = INTRODUCTION.format(version=jax.__version__)
    for name, by_label in sorted(cells.items(), key=lambda cell: list(HEADS).index(cell[0])):
        head = HEADS[name].format(**next(iter(by_label.values())))
        text += f"\n## {head}\n\n{_table(by_label)}\n{_parts(by_label)}"
        text += f"\n{NOTES[name]}" if NOTES[name] else ""
    return text


def _table(by_label: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| | ms | share of peak | TFLOP a chip | temporaries | all-reduces | other collectives |",
        "|---|---:|---:|---:|---:|---|---|",
    ]
    for label, row in by_label.items():
        sent = dict(row["sent"])
        reduced = _sent(sent.pop("all-reduce", None))
        others = ", ".join(f"{name} {_sent(value)}" for name, value in sorted(sent.items()))
        remat = " (`--remat`)" if row["remat"] else ""
        lines.append(
            f"| {label}{remat} | {row['ms']:.1f} | {100 * row['share']:.0f} % | {row['tflop']:.1f} | "
            f"{row['gib']:.1f} GiB | {reduced} | {others or 'none'} |"
        )
    return "\n".join(lines) + "\n"


def _sent(value: Any) -> str:
    return "none" if value is None else f"{value[0]} of {value[1]:,.0f} MiB"


def _parts(by_label: dict[str, dict[str, Any]]) -> str:
    """The milliseconds of each part of the step."""
    names = list(dict.fromkeys(name for row in by_label.values() for name in row["parts"]))
    lines = [f"| ms of | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for label, row in by_label.items():
        found = (f"{row['parts'].get(name, 0):.1f}" for name in names)
        lines.append(f"| {label} | {' | '.join(found)} |")
    return "\n".join(lines) + "\n"
