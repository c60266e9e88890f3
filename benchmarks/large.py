"""One step on a batch whose similarity matrix would fill this machine's memory many times over.

    python -m benchmarks.large                              # 131,072 x 128: three minutes on 2 cores
    python -m benchmarks.large --pairs 1048576 --dim 512 --compile-only

Prints the memory of the compiled program and, unless told not to run it, the time of a step and the
peak memory of the process.
"""

import argparse
import resource
import time
from typing import Any

import jax
import jax.numpy as jnp

from jaxcon.losses import clip_loss
from jaxcon.planning.memory import memory_of


def compile_step(pairs: int, dim: int) -> Any:
    """Compiles value and gradients of the CLIP loss."""
    step = jax.jit(jax.value_and_grad(clip_loss, argnums=(0, 1)))
    z = jax.ShapeDtypeStruct((pairs, dim), jnp.float32)
    return step.lower(z, z).compile()


def peak_mib() -> float:
    """Returns the most MiB that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    """Compiles, prints, runs, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=131_072)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--compile-only", action="store_true")
    args = parser.parse_args()
    program = compile_step(args.pairs, args.dim)
    gib = memory_of(program).total / 2**30
    matrix = 4 * args.pairs**2 / 2**30
    print(
        f"clip_loss, {args.pairs:,} x {args.dim}: {gib:.2f} GiB as compiled; "
        f"one matrix of similarities would be {matrix:,.0f} GiB"
    )
    if args.compile_only:
        return
    z1, z2 = (jax.random.normal(jax.random.key(i), (args.pairs, args.dim)) for i in range(2))
    jax.block_until_ready((z1, z2))
    start = time.perf_counter()
    value, gradients = jax.block_until_ready(program(z1, z2))
    seconds = time.perf_counter() - start
    finite = all(bool(jnp.isfinite(g).all()) for g in gradients)
    print(
        f"a step: {seconds:.0f} s; loss {value:.3f}, gradients finite: {finite}; the process held "
        f"{peak_mib():.0f} MiB at most"
    )


if __name__ == "__main__":
    main()
