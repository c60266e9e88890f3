"""Each part of a convolution on a CPU, beside XLA's own form of it and torch.

    python -m benchmarks.convolutions                    # about three minutes on 2 cores

Value, gradient by the input and gradient by the kernel, each compiled and timed alone, for layers of
ResNet-18 at 32 pixels, ResNet-50 at 224 and `ConvNet` at 64 and 8 pixels. The forms take turns and the
least of their times counts, for another process on the machine slows one call, not all of them.
Written to `--out`: `convolutions.json` and `convolutions.md`.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcon.encoders.convolution import conv

# Images, side, channels, features, edge of the kernel, stride.
SHAPES = (
    (64, 32, 3, 64, 3, 1),
    (64, 32, 64, 64, 3, 1),
    (64, 32, 64, 128, 3, 2),
    (64, 32, 64, 128, 1, 2),
    (64, 16, 128, 128, 3, 1),
    (64, 8, 256, 256, 3, 1),
    (64, 4, 512, 512, 3, 1),
    (16, 56, 64, 256, 1, 1),
    (16, 14, 1024, 256, 1, 1),
    (8, 224, 3, 64, 7, 2),
    (64, 64, 32, 32, 3, 1),
    (64, 32, 32, 64, 1, 1),
    (512, 8, 32, 32, 3, 1),
    (512, 4, 64, 64, 3, 1),
    (512, 2, 128, 128, 3, 1),
)
PARTS = ("value", "by input", "by kernel")
FORMS = ("here", "XLA", "torch, contiguous", "torch, channels_last")
XLA = partial(lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def least_ms(calls: dict[Any, Callable[[], Any]], seconds: float) -> dict[Any, float]:
    """Milliseconds of each call, the least of what it took in turns for so many seconds in all."""
    for call in calls.values():
        call()
    least = dict.fromkeys(calls, float("inf"))
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < 3 or time.perf_counter() < end:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            least[name] = min(least[name], 1e3 * (time.perf_counter() - start))
        rounds += 1
    return least


def in_jax(convolution: Any, shape: tuple[int, ...], arrays: Any) -> list[Callable[[], Any]]:
    """The three parts, compiled."""
    *_, size, stride = shape
    pad = (size // 2, size // 2)
    x, kernel, g = (jnp.asarray(a) for a in arrays)

    def forward(x: Any, kernel: Any) -> Any:
        return convolution(x, kernel, (stride, stride), (pad, pad))

    def part(function: Callable[..., Any]) -> Callable[[], Any]:
        compiled = jax.jit(function, keep_unused=True).lower(x, kernel, g).compile()
        return lambda: jax.block_until_ready(compiled(x, kernel, g))

    return [
        part(lambda x, kernel, g: forward(x, kernel)),
        part(lambda x, kernel, g: jax.vjp(lambda x: forward(x, kernel), x)[1](g)),
        part(lambda x, kernel, g: jax.vjp(lambda k: forward(x, k), kernel)[1](g)),
    ]


def in_torch(layout: str, shape: tuple[int, ...], arrays: Any) -> list[Callable[[], Any]]:
    """The three parts in one of torch's memory layouts."""
    import torch

    *_, size, stride = shape
    x, kernel, g = (torch.from_numpy(a) for a in arrays)
    images = [a.permute(0, 3, 1, 2) for a in (x, g)]
    memory = getattr(torch, layout)
    x, g, kernel = (
        a.contiguous(memory_format=memory) for a in (*images, kernel.permute(3, 2, 0, 1))
    )
    strides, pads = [stride, stride], [size // 2, size // 2]

    def backward(by_input: bool) -> Any:
        return torch.ops.aten.convolution_backward(
            g,
            x,
            kernel,
            None,
            strides,
            pads,
            [1, 1],
            False,
            [0, 0],
            1,
            [by_input, not by_input, False],
        )

    return [
        lambda: torch.nn.functional.conv2d(x, kernel, None, strides, pads),
        partial(backward, True),
        partial(backward, False),
    ]


def measure(shape: tuple[int, ...], seconds: float) -> dict[str, dict[str, float]]:
    """Milliseconds of each part in each form."""
    batch, side, channels, features, size, stride = shape
    out = (side - 1) // stride + 1
    rng = np.random.default_rng(0)
    arrays = [
        rng.normal(size=s).astype(np.float32)
        for s in (
            (batch, side, side, channels),
            (size, size, channels, features),
            (batch, out, out, features),
        )
    ]
    makers = (
        partial(in_jax, conv),
        partial(in_jax, XLA),
        partial(in_torch, "contiguous_format"),
        partial(in_torch, "channels_last"),
    )
    calls = {
        (part, form): call
        for form, make in zip(FORMS, makers, strict=True)
        for part, call in zip(PARTS, make(shape, arrays), strict=True)
    }
    found = least_ms(calls, seconds)
    return {part: {form: found[part, form] for form in FORMS} for part in PARTS}


def table(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """The figures as markdown."""
    lines = [
        "# Convolutions on a CPU",
        "",
        "float32: `python -m benchmarks.convolutions`. Milliseconds, the least of several turns; the",
        "forms of a row took turns. Other processes used the machine too: compare within rows.",
        "",
        f"| convolution | part | {' | '.join(FORMS)} |",
        "|---|---|" + "---:|" * len(FORMS),
    ]
    for name, parts in rows.items():
        for part, forms in parts.items():
            lines.append(f"| {name} | {part} | {' | '.join(f'{forms[f]:.1f}' for f in FORMS)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6, help="of turns, for each convolution")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    args = parser.parse_args()
    rows = {}
    for shape in SHAPES:
        batch, side, channels, features, size, stride = shape
        name = f"{batch}x{side}x{side}x{channels} to {features}, {size}x{size}, stride {stride}"
        rows[name] = measure(shape, args.seconds)
        print(name, rows[name], flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "convolutions.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (args.out / "convolutions.md").write_text(table(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
