"""Each part of a convolution on one core of a CPU, beside XLA's own form of it and torch; encoders too.

    taskset -c 0 python -m benchmarks.convolutions       # five minutes of processor time

Value, gradient by the input and gradient by the kernel, each compiled and timed alone, for layers of
ResNet-18 at 32 pixels, ResNet-50 at 224 and `ConvNet` at 64 and 8 pixels; then value and gradient of
encoders and head. The forms take turns, and the least time of the processor counts: on one core, as
`taskset` sees to, other processes change it little. Written to `--out`: `convolutions.json` and
`convolutions.md`.
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

from benchmarks.step import MODELS
from experiments.images.model import Model
from jaxcon.encoders import ProjectionHead
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
    """Milliseconds of the processor for each call: the least of turns over so many seconds, or of 3."""
    for call in calls.values():
        call()
    least = dict.fromkeys(calls, float("inf"))
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < 3 or time.perf_counter() < end:
        for name, call in calls.items():
            start = time.process_time()
            call()
            least[name] = min(least[name], 1e3 * (time.process_time() - start))
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


def encoder(name: str) -> dict[str, float]:
    """Milliseconds of value and gradient of an encoder of `benchmarks.step` and its head, 32 images."""
    import torch

    from benchmarks import torch_networks as networks

    make, (height, width, channels), _, _ = MODELS[name]
    model = Model(encoder=make(), head=ProjectionHead())
    x = np.random.default_rng(0).uniform(size=(64, height, width, channels)).astype(np.float32)
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), x[:1])

    def energy(params: Any) -> Any:
        z, _ = model.apply(variables | {"params": params}, x, train=True, mutable=True)
        return jnp.sum(z**2)

    gradient = jax.jit(jax.grad(energy)).lower(variables["params"]).compile()
    calls: dict[str, Any] = {"here": lambda: jax.block_until_ready(gradient(variables["params"]))}
    for form, layout in zip(FORMS[2:], (torch.contiguous_format, torch.channels_last), strict=True):
        body, features = (
            (networks.resnet18(), 512)
            if name == "cifar"
            else (networks.convnet(inputs=channels), 128)
        )
        net = torch.nn.Sequential(body, networks.head(features)).to(memory_format=layout)
        images = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=layout)

        def step(net: Any = net, images: Any = images) -> None:
            net.zero_grad()
            (net(images) ** 2).sum().backward()

        calls[form] = step
    return least_ms(calls, 1)


def table(layers: dict[str, dict[str, dict[str, float]]], encoders: dict[str, Any]) -> str:
    """The figures as markdown."""
    lines = [
        "# Convolutions on a CPU",
        "",
        "float32, one core: `taskset -c 0 python -m benchmarks.convolutions`. Milliseconds of the",
        "processor, the least of several turns; the forms of a row took turns. Other processes used",
        "the machine too: compare within rows.",
        "",
        f"| convolution | part | {' | '.join(FORMS)} |",
        "|---|---|" + "---:|" * len(FORMS),
    ]
    for name, parts in layers.items():
        for part, forms in parts.items():
            lines.append(f"| {name} | {part} | {' | '.join(f'{forms[f]:.1f}' for f in FORMS)} |")
    others = [form for form in FORMS if form != "XLA"]
    lines += ["", "Encoder and head, value and gradient, 64 views:", ""]
    lines += [f"| network | {' | '.join(others)} |", "|---|" + "---:|" * len(others)]
    for name, forms in encoders.items():
        side = MODELS[name][1][0]
        cells = " | ".join(f"{forms[form]:.0f}" for form in others)
        lines.append(f"| {name}, {side} px | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6, help="of turns, for each convolution")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    args = parser.parse_args()
    encoders, layers = {name: encoder(name) for name in MODELS}, {}
    print(encoders, flush=True)
    for shape in SHAPES:
        batch, side, channels, features, size, stride = shape
        name = f"{batch}x{side}x{side}x{channels} to {features}, {size}x{size}, stride {stride}"
        layers[name] = measure(shape, args.seconds)
        print(name, layers[name], flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    found = {"encoders": encoders, "layers": layers}
    (args.out / "convolutions.json").write_text(
        json.dumps(found, indent=1) + "\n", encoding="utf-8"
    )
    (args.out / "convolutions.md").write_text(table(layers, encoders), encoding="utf-8")


if __name__ == "__main__":
    main()
