"""Where the time of a SimCLR step goes, and the same network and batch in torch.

    python -m benchmarks.step                       # about six minutes on 2 cores
    python -m benchmarks.step --models digits --repeats 5

Each part of the step is compiled and timed alone: the wait for the next batch, the two views, the
encoder forward and backward, the loss with its gradient, the optimizer. `step` is a whole step of
the form that the experiments run; XLA fuses across parts, so it takes a little less than their sum.
Networks and settings are those of common comparisons, not of the recipes. torch runs
the encoder, the loss and Adam on views that are ready (it has no augmentation on the device), so it
compares with the sum of those three parts here. Writes `step.json` and `step.md` to `--out`.
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
import optax

from benchmarks.implementations import torch_loss
from benchmarks.timing import median_ms
from experiments.images.model import Model, make_loss
from jaxcon.augment import digits_transform, simclr_transform, two_views
from jaxcon.data.batching import batches
from jaxcon.data.splits import Split
from jaxcon.encoders import ConvNet, ProjectionHead, resnet18
from jaxcon.losses import ntxent_loss
from jaxcon.training.optimizers import adamw
from jaxcon.training.state import create_state
from jaxcon.training.step import make_train_step

TEMPERATURE = 0.5
# Encoder, image shape, batch, views.
MODELS: dict[str, tuple[Any, tuple[int, int, int], int, Any]] = {
    "digits": (ConvNet, (8, 8, 1), 256, digits_transform),
    "icons": (ConvNet, (64, 64, 3), 128, simclr_transform),
    "cifar": (resnet18, (32, 32, 3), 128, simclr_transform),
}


def parts(name: str, repeats: int) -> dict[str, float]:
    """Measures the milliseconds of each part of a step, and of the step."""
    make, shape, rows, transform = MODELS[name]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8 * rows, *shape), np.uint8)
    stream = batches(Split(images, None), seed=0, batch_size=rows)
    model = Model(encoder=make(axis_name="batch"), head=ProjectionHead(axis_name="batch"))
    key = jax.random.key(0)
    variables = jax.jit(lambda k: model.init(k, jnp.zeros((1, *shape)), train=False))(key)
    optimizer = adamw(optax.constant_schedule(1e-3), weight_decay=1e-4)
    state = create_state(variables, optimizer, apply_fn=model.apply)
    contrast_views = partial(ntxent_loss, temperature=TEMPERATURE)
    loss_fn = make_loss(model, transform, contrast_views)
    batch = next(stream)

    def over_one_device(function: Callable[..., Any]) -> Callable[..., Any]:
        mapped = jax.vmap(function, axis_name="batch", in_axes=None, axis_size=1)
        return jax.jit(lambda *args: jax.tree.map(lambda a: a[0], mapped(*args)))

    @jax.jit
    def view(batch: Any) -> Any:
        views = two_views(key, batch["image"], transform=transform, index=batch["index"])
        return jnp.concatenate(views)

    def encoder(variables: Any, views: Any) -> Any:
        def scalar(params: Any) -> Any:
            z, _ = model.apply(variables | {"params": params}, views, train=True, mutable=True)
            return jnp.sum(z**2)

        return jax.grad(scalar)(variables["params"])

    def loss(z: Any) -> Any:
        return jax.value_and_grad(
            lambda z: ntxent_loss(*jnp.split(z, 2), temperature=TEMPERATURE, axis_name="batch")
        )(z)

    views, z = view(batch), jax.random.normal(key, (2 * rows, 128))
    encode, contrast = over_one_device(encoder), over_one_device(loss)
    update = jax.jit(lambda state, grads: state.apply_gradients(grads=grads))
    step = over_one_device(make_train_step(loss_fn))
    return {
        "input": median_ms(lambda _: next(stream), repeats),
        "views": median_ms(lambda _: view(batch), repeats),
        "encoder": median_ms(lambda _: encode(variables, views), repeats),
        "loss": median_ms(lambda _: contrast(z), repeats),
        "optimizer": median_ms(lambda _: update(state, state.params), repeats),
        "step": median_ms(lambda _: step(state, batch, key), repeats),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
    }


def in_torch(name: str, repeats: int) -> dict[str, float]:
    """Measures the milliseconds of encoder, loss and Adam in torch, in its two memory layouts."""
    import torch

    from benchmarks import torch_networks as networks

    _, (height, width, channels), rows, _ = MODELS[name]
    encoder, features = {
        "digits": (networks.convnet, 128),
        "icons": (partial(networks.convnet, inputs=3), 128),
        "cifar": (networks.resnet18, 512),
    }[name]
    found: dict[str, float] = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        model = torch.nn.Sequential(encoder(), networks.head(features))
        model = model.to(memory_format=layout)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        x = torch.rand(2 * rows, channels, height, width).to(memory_format=layout)

        def step(_: int) -> float:
            loss = torch_loss(*model(x).chunk(2), TEMPERATURE)  # noqa: B023
            optimizer.zero_grad()  # noqa: B023
            loss.backward()
            optimizer.step()  # noqa: B023
            return loss.item()

        found[f"torch, {str(layout).removeprefix('torch.')}"] = median_ms(step, repeats)
        found["parameters in torch"] = sum(p.numel() for p in model.parameters())
    return found


def table(name: str, row: dict[str, float]) -> str:
    """Formats one model's figures as a markdown table, with each part's share of the step."""
    _, shape, rows, _ = MODELS[name]
    head = f"## {name}: {rows} images of {'x'.join(map(str, shape))} per step\n\n"
    lines = ["| part | ms | share of the step |", "|---|---:|---:|"]
    for part in ("input", "views", "encoder", "loss", "optimizer", "step"):
        lines.append(f"| {part} | {row[part]:.2f} | {100 * row[part] / row['step']:.1f} % |")
    ours = row["encoder"] + row["loss"] + row["optimizer"]
    lines += ["", "| encoder + loss + optimizer | ms | ratio |", "|---|---:|---:|"]
    lines.append(f"| here | {ours:.1f} | 1.00 |")
    for label, ms in row.items():
        if label.startswith("torch"):
            lines.append(f"| {label} | {ms:.1f} | {ms / ours:.2f} |")
    return head + "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    args = parser.parse_args()
    rows = {}
    for name in args.models:
        rows[name] = parts(name, args.repeats) | in_torch(name, args.repeats)
        print(table(name, rows[name]), flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "step.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    head = (
        "# Where the time of a SimCLR step goes\n\nfloat32, CPU: `python -m benchmarks.step`.\n\n"
    )
    (args.out / "step.md").write_text(
        head + "\n".join(table(n, r) for n, r in rows.items()), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
