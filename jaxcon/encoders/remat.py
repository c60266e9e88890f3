"""Rematerialization: the activations of an encoder are computed again in the backward pass.

Each layer and block that an encoder is made of keeps its input alone; what it computes inside is made
again when its gradient is due, and dropped. Recomputing an encoder as a whole would save nothing: its
backward pass would begin by holding all of it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn


def rematerialized(apply: Callable[..., Any], *encoders: Sequence[str]) -> Callable[..., Any]:
    """Returns `module.apply` with the parts of some submodules recomputed in the backward pass.

    Values, gradients and updated collections, such as batch statistics, are those of `apply`, and so
    are the names of all variables. It takes one more forward pass of these submodules. On CPUs it saves
    no memory: XLA drops the barriers there that put the second computation off until it is due.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxcon.encoders import MLP
      >>> net, images = MLP(widths=(8, 8)), jnp.ones((2, 4, 4, 1))
      >>> variables = jax.jit(lambda key: net.init(key, images, train=False))(jax.random.key(0))
      >>> def kept(apply):  # numbers that the forward pass keeps for the backward pass
      ...     def loss(params):
      ...         mutable = ["batch_stats"]
      ...         return apply({**variables, "params": params}, images, train=True, mutable=mutable)[0]
      ...     saved = jax.eval_shape(lambda params: jax.vjp(loss, params)[1], variables["params"])
      ...     return sum(x.size for x in jax.tree.leaves(saved))
      >>> kept(rematerialized(net.apply, ())) < kept(net.apply)
      True

    Args:
      apply: the method of a module.
      *encoders: paths of submodules by their names, () for the module itself. What they call directly
        is recomputed, part by part.
    """
    paths = {tuple(path) for path in encoders}

    def run(*args: Any, **settings: Any) -> Any:
        inside = False

        def intercept(
            call: Callable[..., Any],
            args: Any,
            settings: Any,
            context: nn.module.InterceptorContext,
        ) -> Any:
            part = context.module
            whole = inside or context.method_name != "__call__" or not part.path
            if whole or part.path[:-1] not in paths:
                return call(*args, **settings)

            def again(part: nn.Module) -> Any:
                nonlocal inside
                inside = True  # the parts of a part are recomputed with it
                try:
                    return part(*args, **settings)
                finally:
                    inside = False

            return nn.remat(again)(part)

        with nn.intercept_methods(intercept):
            return apply(*args, **settings)

    return run
