"""What differs between platforms, chosen by the one for which a program is lowered.

While a function is traced, nobody knows where it will run: the same trace may be compiled for a TPU on
a machine that has none, for the CPU beside a GPU, or exported for both. So each platform's form
becomes a branch, and XLA sees only the right one.

Autodiff would keep the residuals of all branches together. So the branches stand inside the rules of
a custom derivative, and what passes from one rule to the other has the same shapes for all platforms.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from jax import lax

from jaxcon.streaming.rules import Cut

Cuts = Sequence[tuple[str, Cut]]


def by_platform(cuts: Cuts, f: Callable[..., Any], *args: Any) -> Any:
    """Calls `f(cut, *args)` with the cut of the platform; one branch serves all that have the same.

    Args:
      cuts: one for each platform that `jax.lax.platform_dependent` knows by name. The last one also
        serves those that are not named.
      f: gives results of the same shapes for every cut.
    """
    last = cuts[-1][1]
    forms = {cut: partial(f, cut) for _, cut in cuts}  # JAX traces the same object once
    named = {platform: forms[cut] for platform, cut in cuts if cut != last}
    if not named:
        return f(last, *args)
    return lax.platform_dependent(*args, **named, default=forms[last])
