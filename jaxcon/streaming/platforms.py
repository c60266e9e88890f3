"""What differs between platforms, chosen by the one for which a program is lowered.

While a function is traced, nobody knows where it will run: the same trace may be compiled for a TPU on
a machine that has none, for the CPU beside a GPU, or exported for both. So each platform's form
becomes a branch, of which XLA sees the right one alone.

Under autodiff the residuals of all branches would be kept together. Hence branches stand inside the
rules of a custom derivative, and what passes from one rule to the other has one shape for all.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from jax import lax

from jaxcon.streaming.rules import Cut

Cuts = Sequence[tuple[str, Cut]]


def by_platform(cuts: Cuts, f: Callable[..., Any], *args: Any) -> Any:
    """`f(cut, *args)`, with the cut of the platform; without a branch where all have the same.

    Args:
      cuts: of each platform that `jax.lax.platform_dependent` knows by name. The last one serves those
        that are not named, too.
      f: gives results of the same shapes for every cut.
    """
    if len({cut for _, cut in cuts}) == 1:
        return f(cuts[0][1], *args)
    branches = {platform: partial(f, cut) for platform, cut in cuts[:-1]}
    return lax.platform_dependent(*args, **branches, default=partial(f, cuts[-1][1]))
