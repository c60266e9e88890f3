"""How does an encoder leave a collapse? A curve per regularizer.

    python -m experiments.collapse

An encoder is started almost collapsed: all its embeddings within a fraction of a degree of one
direction, where the N-pairs loss sits at ln N and its gradient is nearly zero. It then trains on pairs
of noisy views of the digits, with the loss alone or with a regularizer beside it. Writes
docs/collapse.json, docs/figures/collapse.svg and the table in docs/collapse.md. Half a minute on two
CPU cores.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from experiments.running.ends import usage_errors
from experiments.running.options import parse
from experiments.running.run import follow
from jaxcon import diagnostics, losses
from jaxcon.training.workdir import check_writable
from jaxcon.typing import Array

Loss = Callable[[Array, Array], Array]

BATCH = 128
WIDTHS = (64, 128, 32)


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a nearly collapsed encoder with each regularizer, and write curves and table."""

    steps: int = 400
    """Optimizer steps of each run."""
    spread: float = 1e-3
    """Initial deviation of the embeddings from their common direction, relative to their length."""
    seed: int = 0
    """Of the parameters, batches and noise."""
    output: Path = Path("docs")
    """Folder of collapse.json, collapse.md and figures/collapse.svg."""


def both(regularizer: Callable[[Array], Array]) -> Loss:
    """Returns the regularizer averaged over the two views."""
    return lambda z1, z2: (regularizer(z1) + regularizer(z2)) / 2


def n_pairs(z1: Array, z2: Array, *, temperature: float = 1.0) -> Array:
    """Return the loss of the first post."""
    return losses.npairs_loss(z1, z2, temperature=temperature)


OBJECTIVES: dict[str, tuple[Loss, Loss]] = {
    "loss alone, temperature 1": (n_pairs, lambda z1, z2: jnp.zeros(())),
    "loss alone, temperature 0.1": (
        partial(n_pairs, temperature=0.1),
        lambda z1, z2: jnp.zeros(()),
    ),
    "+ uniformity": (n_pairs, both(losses.uniformity_loss)),
    "+ KoLeo": (n_pairs, both(losses.koleo_loss)),
    "+ variance hinge": (n_pairs, both(losses.variance_loss)),
    "+ Barlow Twins, 0.1": (n_pairs, lambda z1, z2: 0.1 * losses.barlow_twins_loss(z1, z2)),
}
OPTIMIZERS = {"sgd": optax.sgd(0.1, momentum=0.9), "adam": optax.adam(1e-3)}


def init(key: Array, spread: float) -> dict[str, Array]:
    """Parameters whose embeddings are a common direction plus deviations of relative size spread."""
    k1, k2, k3 = jax.random.split(key, 3)
    w1 = jax.random.normal(k1, WIDTHS[:2]) * np.sqrt(2 / WIDTHS[0])
    w2 = jax.random.normal(k2, WIDTHS[1:]) * np.sqrt(1 / WIDTHS[1])
    direction = jax.random.normal(k3, WIDTHS[2:])
    return {"w1": w1, "w2": spread * w2, "common": direction}


def encode(params: dict[str, Array], images: Array) -> Array:
    """Return the embeddings of images: a common direction, and what tells them apart."""
    return jax.nn.relu(images @ params["w1"]) @ params["w2"] + params["common"]


def views(key: Array, images: Array) -> tuple[Array, Array]:
    """Return the images with noise, twice."""
    noise = 0.3 * jax.random.normal(key, (2, *images.shape))
    return images + noise[0], images + noise[1]


def run(
    config: Config, images: Array, objective: tuple[Loss, Loss], optimizer: str
) -> dict[str, list[float]]:
    """Trains once; returns, step by step, the loss over chance, mean cosine and accuracy."""
    loss, regularizer = objective
    tx = OPTIMIZERS[optimizer]
    params = init(jax.random.key(config.seed), config.spread)

    @jax.jit
    def step(carry: tuple, number: Array) -> tuple[tuple, dict[str, Array]]:
        params, state = carry
        key = jax.random.fold_in(jax.random.key(config.seed + 1), number)
        rows, noise = jax.random.split(key)
        batch = images[jax.random.choice(rows, len(images), (BATCH,), replace=False)]
        x1, x2 = views(noise, batch)

        def objective_fn(params: dict[str, Array]) -> Array:
            z1, z2 = encode(params, x1), encode(params, x2)
            return loss(z1, z2) + regularizer(z1, z2)

        gradient = jax.grad(objective_fn)(params)
        z1, z2 = encode(params, x1), encode(params, x2)
        measured = {
            "loss over chance": n_pairs(z1, z2) / diagnostics.chance_loss(BATCH),
            "mean cosine": diagnostics.mean_cosine(z1),
            "accuracy": diagnostics.contrastive_accuracy(z1, z2),
        }
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), measured

    carry = (params, tx.init(params))
    numbers = np.arange(config.steps)
    (params, _), rows = follow(carry, step, numbers, steps=config.steps, read_every=100)
    curves = {name: [round(float(row[name]), 5) for row in rows] for name in rows[0]}
    x1, x2 = views(jax.random.key(config.seed + 2), images[:512])
    report = diagnostics.collapse_report(encode(params, x1), encode(params, x2), temperature=1.0)
    return {**curves, "effective rank": [report.effective_rank]}


def first_below(values: list[float], level: float) -> int | None:
    """Returns the first step whose value is below the level, None if there is none."""
    return next((i for i, v in enumerate(values) if v < level), None)


def table(results: dict[str, dict[str, dict]]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| objective | optimizer | steps until the mean cosine is below 0.5 "
        "| mean cosine at the end | loss / ln N | finds its pair | effective rank, of 32 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in results.items():
        for optimizer, curves in runs.items():
            left = first_below(curves["mean cosine"], 0.5)
            cells = [
                name,
                optimizer,
                "never" if left is None else str(left),
                f"{curves['mean cosine'][-1]:.3f}",
                f"{curves['loss over chance'][-1]:.3f}",
                f"{np.mean(curves['accuracy'][-20:]):.0%}",
                f"{curves['effective rank'][0]:.1f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(results: dict[str, dict[str, dict]], path: Path) -> None:
    """Draws mean cosine against step, a panel per optimizer."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for ax, optimizer in zip(figure.subplots(1, 2, sharey=True), OPTIMIZERS, strict=True):
        styles = itertools.cycle(("-", "--", "-.", ":"))
        for name, runs in results.items():
            curve = runs[optimizer]["mean cosine"]
            steps = range(1, len(curve) + 1)
            ax.semilogx(steps, curve, label=name, linewidth=1.4, linestyle=next(styles))
        ax.set(title=optimizer, xlabel="step, from 1", ylim=(-0.05, 1.05))
        ax.grid(alpha=0.3)
    figure.axes[0].set_ylabel("mean cosine of different images")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def thinned(results: dict[str, dict[str, dict]], config: Config) -> dict:
    """The results with a hundred points a curve, beside the configuration."""
    every = max(1, config.steps // 100)
    curves = {
        name: {o: {k: v[::every] for k, v in curves.items()} for o, curves in runs.items()}
        for name, runs in results.items()
    }
    settings = {"steps": config.steps, "spread": config.spread, "seed": config.seed}
    return {"settings": settings, "every": every, "curves": curves}


def insert(page: Path, text: str) -> None:
    """Replaces what stands between the page's two table markers."""
    before, rest = page.read_text(encoding="utf-8").split("<!-- table -->\n", 1)
    after = rest.split("<!-- end of table -->", 1)[1]
    page.write_text(
        f"{before}<!-- table -->\n{text}\n<!-- end of table -->{after}", encoding="utf-8"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison of a command line."""
    config = parse(Config, program="collapse", arguments=arguments)
    with usage_errors():
        check_writable(config.output, option="--output")
    images = jnp.asarray(load_digits(return_X_y=True)[0] / 16 - 0.3, jnp.float32)
    results = {
        name: {optimizer: run(config, images, objective, optimizer) for optimizer in OPTIMIZERS}
        for name, objective in OBJECTIVES.items()
    }
    config.output.mkdir(parents=True, exist_ok=True)
    (config.output / "collapse.json").write_text(
        json.dumps(thinned(results, config)) + "\n", encoding="utf-8"
    )
    draw(results, config.output / "figures" / "collapse.svg")
    page = config.output / "collapse.md"
    if page.exists():
        insert(page, table(results))
    print(table(results))


if __name__ == "__main__":
    main()
