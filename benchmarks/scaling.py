"""The losses on 1 to 8 devices, and how much they would send on 8 to 8,192.

    python -m benchmarks.scaling                       # about five minutes on 2 cores

Writes two tables to `--out`, as `scaling.json` and `scaling.md`:

- a global batch over 1, 2, 4 and 8 virtual CPU devices. They share this machine's cores, so time
  cannot fall with their number; the table shows that the result is the same, and how much
  exchanging the candidates adds. NT-Xent's symmetry is lost when candidates are gathered (a device
  sees each pair of its rows with another's once) and kept in its half ring.
- a model: the bytes that a device sends in a step, counted in the compiled programs of 8 and 12
  devices (they grow linearly with the number of devices, which the program of 10 confirms; with fewer,
  XLA merges some), next to the times that published link speeds and matrix rates imply. No such
  machine was at hand.
"""

import argparse
import functools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

VIRTUAL = 12
os.environ["XLA_FLAGS"] = (
    re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", ""))
    + f" --xla_force_host_platform_device_count={VIRTUAL}"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import Mesh, NamedSharding  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402

from benchmarks.timing import median_ms  # noqa: E402
from jaxcon import collectives, losses  # noqa: E402
from jaxcon.planning.machines import MACHINES  # noqa: E402
from jaxcon.planning.traffic import traffic  # noqa: E402

# A loss, how candidates travel, and the products of (own rows) x (all rows) x dim of a device.
FORMS: dict[str, tuple[Callable[..., Any], Callable[..., Any], int, float]] = {
    "NT-Xent, gather": (losses.ntxent_loss, collectives.gather, 2, 4),
    "NT-Xent, ring": (losses.ntxent_loss, collectives.ring, 2, 2),
    "CLIP, gather": (losses.clip_loss, collectives.gather, 1, 4),
    "CLIP, ring": (losses.clip_loss, collectives.ring, 1, 4),
    "SigLIP, ring": (losses.siglip_loss, collectives.ring, 1, 3),
}


def step(form: str, devices: int) -> Callable[..., Any]:
    """Makes a step of the loss of a global batch over that many devices, value and gradients."""
    loss, exchange, _, _ = FORMS[form]
    mesh = Mesh(np.array(jax.devices()[:devices]), ("batch",))
    local = functools.partial(loss, axis_name="batch", exchange=exchange, block_size=512)
    spread = jax.shard_map(
        jax.value_and_grad(local, argnums=(0, 1)),
        mesh=mesh,
        in_specs=P("batch"),
        out_specs=(P(), P("batch")),
    )
    return jax.jit(spread, in_shardings=NamedSharding(mesh, P("batch")))


def over_devices(form: str, pairs: int, dim: int, repeats: int) -> list[dict[str, Any]]:
    """Measures time, and deviation from one device, on 1, 2, 4 and 8."""
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(pairs, dim))
    z = [np.float32(centre + 0.5 * rng.normal(size=(pairs, dim))) for _ in range(2)]
    rows: list[dict[str, Any]] = []
    one: Any = None
    for devices in (1, 2, 4, 8):
        run = step(form, devices)
        result = jax.tree.map(np.asarray, run(*z))
        one = one or result
        gap = max(
            float(np.linalg.norm(a - b) / np.linalg.norm(b))
            for a, b in zip(result[1], one[1], strict=True)
        )
        ms = median_ms(lambda _: run(*z), repeats)  # noqa: B023
        rows.append({"form": form, "devices": devices, "ms": ms, "gap": gap})
        print(rows[-1], flush=True)
    return rows


def blocks(form: str, devices: int, rows: int = 64, dim: int = 64) -> float:
    """Counts what a device sends in a step, in units of its own rows of one argument."""
    z = jax.ShapeDtypeStruct((devices * rows, dim), jnp.float32)
    text = step(form, devices).lower(z, z).compile().as_text()
    block = 4 * rows * dim
    found = traffic(text, devices, at_least=block)
    return sum(each.sent for each in found.values()) / block


def model(form: str, rows: int, dim: int) -> list[dict[str, Any]]:
    """Models bytes sent and milliseconds for numbers of devices that no machine here has."""
    views, products = FORMS[form][2:]
    eight, twelve = blocks(form, 8), blocks(form, 12)
    slope = (twelve - eight) / 4
    assert blocks(form, 10) == eight + 2 * slope, "not linear in the number of devices"
    found = []
    for devices in (8, 64, 1024, 8192):
        gigabytes = (eight + slope * (devices - 8)) * rows * dim * 4 / 1e9
        flop = products * 2 * (views * rows) ** 2 * devices * dim
        row: dict[str, Any] = {"form": form, "devices": devices, "gigabytes": gigabytes}
        for name, machine in MACHINES.items():
            speed = machine.ring if FORMS[form][1] is collectives.ring else machine.links
            if devices <= machine.largest:
                row[name] = [1e3 * gigabytes / speed, flop / machine.rate / 1e9]
        found.append(row)
    return found


def tables(found: dict[str, Any], args: argparse.Namespace) -> str:
    """Formats both tables as markdown."""
    lines = [
        "# Devices\n",
        f"## {args.pairs:,} pairs of width {args.dim} over virtual CPU devices\n",
        "Value and gradients, tiles of 512, float32; `gap` is the norm-wise relative difference of "
        "the gradients from one device's. `python -m benchmarks.scaling`.\n",
        "| loss | devices | ms | times one device | gap |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in found["measured"]:
        single = next(r for r in found["measured"] if r["form"] == row["form"])
        lines.append(
            f"| {row['form']} | {row['devices']} | {row['ms']:.0f} | {row['ms'] / single['ms']:.2f} "
            f"| {row['gap']:.0e} |"
        )
    lines += [
        f"\n## Model: {args.local:,} pairs per device, width {args.dim}\n",
        "How much a device sends in a step, counted in the compiled program. Next to it, for "
        "published speeds: milliseconds to send it / milliseconds of the loss's products at the full "
        "matrix rate of float32. Where the first is below the second, sending can hide behind the "
        "products. Latency, which a ring of many short hops feels, is left out.\n",
        f"| loss | devices | GB sent | {' | '.join(MACHINES)} |",
        "|---|---:|---:|" + "---:|" * len(MACHINES),
    ]
    for row in found["model"]:
        times = " | ".join(
            f"{row[name][0]:.2f} / {row[name][1]:.2f}" if name in row else "" for name in MACHINES
        )
        lines.append(f"| {row['form']} | {row['devices']:,} | {row['gigabytes']:.3f} | {times} |")
    speeds = "; ".join(
        f"{name}: {m.links:g} GB/s, in a ring {m.ring:g} GB/s, {m.rate:.0f} TFLOP/s"
        for name, m in MACHINES.items()
    )
    lines.append(
        f"\nSpeeds, one way, from the vendors' data sheets: {speeds} (on TPUs a sixth of the rate of "
        "bfloat16). Cells are empty where that many chips cannot be connected this way."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, models and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=4096, help="pairs in the global batch")
    parser.add_argument("--local", type=int, default=512, help="pairs per device, in the model")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    args = parser.parse_args()
    found: dict[str, Any] = {"model": [], "measured": []}
    for form in FORMS:
        found["model"] += model(form, args.local, args.dim)
        found["measured"] += over_devices(form, args.pairs, args.dim, args.repeats)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "scaling.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (args.out / "scaling.md").write_text(tables(found, args), encoding="utf-8")
    print(tables(found, args))


if __name__ == "__main__":
    main()
