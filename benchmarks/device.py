"""What one lent accelerator can tell in eight minutes.

    python -m benchmarks.device --out FOLDER           # on the accelerator; --small to try it on a CPU

Needs jax, flax, optax and chex alone. In this order: the rates of a matrix product and of a copy; the
value and gradient of every loss there against float64 on the host, in each of its forms; a training
step of SimCLR with a ResNet-50 at 224 pixels on synthetic images; the losses in plain jnp, by default
and in the forms that the default could have taken. Each has a share of the time, and what does not fit
is left out. Prints a line a measurement and keeps `device.json` and `device.md` in `--out` up to date.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.dense import LOSSES, forms
from benchmarks.public import public_losses, required
from benchmarks.timing import median_ms
from jaxcon import losses
from jaxcon.planning.memory import memory_of
from jaxcon.streaming import rules

Row = dict[str, Any]
# A form that never is whole, in small: it takes all branches of an accelerator's line at 192 rows.
SMALL = rules.Line(block=64, lanes=8, panel_rows=32, tile_pairs=2**12, rounded=True)
FORMS: dict[str, rules.Rule] = {
    "one matrix": rules.Rule(whole_pairs=2**40, whole_pairs_of_one_set=2**40),
    "panels": rules.everywhere(SMALL, whole_pairs=0, whole_pairs_of_one_set=0),
}


def arguments(loss: Callable[..., Any], rows: int, dim: int) -> tuple[list[np.ndarray], list[Any]]:
    """Returns float64 embeddings to differentiate, and the labels if the loss takes them."""
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(rows, dim))
    embeddings, others = [], []
    for name in required(loss):
        if name == "labels":
            others.append(np.arange(rows) % (rows // 4))
        elif name.startswith("log_std"):
            embeddings.append(0.1 * rng.normal(size=rows))
        else:
            embeddings.append(centre + 0.5 * rng.normal(size=(rows, dim)))
    return embeddings, others


def value_and_grads(loss: Callable[..., Any], embeddings: Any, others: Any) -> np.ndarray:
    """Returns the value and all gradients as one vector."""
    step = jax.jit(jax.value_and_grad(lambda z: loss(*z, *others)))
    value, grads = step(tuple(map(jnp.asarray, embeddings)))
    return np.concatenate([np.ravel(np.asarray(a, np.float64)) for a in (value, *grads)])


def values(rows: int = 192, dim: int = 48) -> Iterator[Row]:
    """Compares every loss in float32 with float64 on the host: relative errors."""
    host = jax.devices("cpu")[0]
    for name, loss in public_losses().items():
        embeddings, others = arguments(loss, rows, dim)
        with jax.default_device(host), jax.enable_x64(True):
            exact = value_and_grads(loss, embeddings, others)
        for form, rule in FORMS.items():
            with rules.in_force(rule):
                narrow = [np.float32(z) for z in embeddings]
                found = value_and_grads(loss, narrow, others)
            error = found - exact
            yield {
                "what": "values",
                "loss": name,
                "form": form,
                "value": abs(error[0]) / max(abs(exact[0]), 1e-3),
                "gradient": float(np.linalg.norm(error[1:]) / np.linalg.norm(exact[1:])),
            }


def ceilings(small: bool) -> Iterator[Row]:
    """Measures the rates that nothing here can exceed."""
    n = 512 if small else 8192
    a = jax.random.normal(jax.random.key(0), (n, n), jnp.bfloat16)
    product = jax.jit(jnp.matmul)
    ms = median_ms(lambda _: product(a, a), 5)
    yield {"what": "matrix product, bfloat16", "n": n, "tflops": 2 * n**3 / ms / 1e9}
    b = jnp.ones(2**20 if small else 2**29, jnp.bfloat16)
    copy = jax.jit(lambda b: b + 1)
    yield {"what": "copy", "gb_per_s": 2 * b.nbytes / median_ms(lambda _: copy(b), 5) / 1e6}


def timed(small: bool, platform: str) -> Iterator[Row]:
    """Times the losses in their forms, products in bfloat16."""
    for pairs in (256, 1024) if small else (4096, 32_768, 131_072):
        z1, z2 = jax.random.normal(jax.random.key(1), (2, pairs, 512))
        for name, (loss, dense, _) in LOSSES.items():
            ours = functools.partial(loss, precision=jnp.bfloat16)
            steps: dict[str, tuple[Any, rules.Rule | None]] = {"dense": (dense, None)}
            steps |= {form: (ours, rule) for form, rule in forms(platform, pairs).items()}
            for form, (f, rule) in steps.items():
                row: Row = {"what": "loss", "loss": name, "pairs": pairs, "form": form}
                try:
                    with rules.in_force(rule or rules.current()):
                        program = (
                            jax.jit(jax.value_and_grad(f, argnums=(0, 1))).lower(z1, z2).compile()
                        )
                    row["mib"] = memory_of(program).temporaries / 2**20
                    row["ms"] = median_ms(lambda _, args=(program, z1, z2): args[0](*args[1:]), 5)
                except jax.errors.JaxRuntimeError as error:  # no room
                    row["error"] = str(error).splitlines()[0][:200]
                yield row


def step(small: bool, rate: float) -> Iterator[Row]:
    """Times a training step of SimCLR with a ResNet-50 on synthetic images, in bfloat16."""
    import optax

    from jaxcon.encoders import resnet50

    side, images = (32, 8) if small else (224, 256)
    model = resnet50(dtype=jnp.bfloat16)
    views = jax.random.uniform(jax.random.key(2), (2 * images, side, side, 3))
    variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(3), views[:2])
    optimizer = optax.sgd(0.1, momentum=0.9)

    def objective(params: Any, stats: Any, views: Any) -> tuple[Any, Any]:
        z, changed = model.apply(
            {"params": params, "batch_stats": stats}, views, train=True, mutable=["batch_stats"]
        )
        z1, z2 = jnp.split(z, 2)
        return losses.ntxent_loss(z1, z2, precision=jnp.bfloat16), changed["batch_stats"]

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def update(params: Any, stats: Any, moments: Any, views: Any) -> tuple[Any, ...]:
        (loss, stats), grads = jax.value_and_grad(objective, has_aux=True)(params, stats, views)
        updates, moments = optimizer.update(grads, moments, params)
        return optax.apply_updates(params, updates), stats, moments, loss

    state = variables["params"], variables["batch_stats"], optimizer.init(variables["params"])
    program = update.lower(*state, views).compile()
    seconds = []
    for _ in range(3 if small else 10):
        start = time.perf_counter()
        *state, loss = program(*state, views)
        jax.block_until_ready(loss)
        seconds.append(time.perf_counter() - start)
    median = float(np.median(seconds[1:]))
    # 4.1 GFLOP of multiplications a 224-pixel image forward; backward twice that.
    flop = 2 * 3 * 4.1e9 * 2 * images * (side / 224) ** 2
    yield {
        "what": "step of SimCLR, ResNet-50",
        "side": side,
        "images": images,
        "ms": 1e3 * median,
        "images_per_s": images / median,
        "share_of_product_rate": flop / median / rate / 1e12,
        "mib": memory_of(program).total / 2**20,
        "loss": float(loss),
    }


def page(rows: list[Row]) -> str:
    """Formats the rows, one table a kind of measurement."""
    machine = rows[0]
    lines = [
        f"# Measured on one {machine['device']}",
        "",
        f"`python -m benchmarks.device`, {machine}.",
    ]
    kinds = dict.fromkeys(row["what"] for row in rows[1:])
    for kind in kinds:
        found = [row for row in rows if row["what"] == kind]
        keys = list(
            dict.fromkeys(key for row in found for key in row if key not in ("what", "at_s"))
        )
        lines += ["", f"## {kind}", "", f"| {' | '.join(keys)} |", "|" + "---|" * len(keys)]
        for row in found:
            cells = [row.get(key, "") for key in keys]
            cells = [f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints and writes, as far as the time goes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--small", action="store_true", help="sizes for trying it on a CPU")
    parser.add_argument("--seconds", type=float, default=420, help="of which each part has a share")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    device, start, rows = jax.devices()[0], time.time(), []
    platform = {"gpu": "cuda", "rocm": "cuda"}.get(device.platform, device.platform)

    def record(row: Row) -> float:
        """Writes all that is known; returns the share of the time that is over."""
        seconds = time.time() - start
        rows.append(row | {"at_s": round(seconds)})
        print(json.dumps(rows[-1]), flush=True)
        (args.out / "device.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        (args.out / "device.md").write_text(page(rows), encoding="utf-8")
        return seconds / args.seconds

    record(
        {
            "what": "machine",
            "device": device.device_kind,
            "platform": device.platform,
            "jax": jax.__version__,
        }
    )
    peak = list(ceilings(args.small))
    for row in peak:
        record(row)
    stages = (
        (values(), 0.4),
        (step(args.small, peak[0]["tflops"]), 0.6),
        (timed(args.small, platform), 1.0),
    )
    for stage, until in stages:
        if time.time() - start > until * args.seconds:
            continue
        for row in stage:
            if record(row) > until:
                print(f"no time is left for more of {row['what']}", flush=True)
                break


if __name__ == "__main__":
    main()
