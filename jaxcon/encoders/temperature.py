"""A temperature that is learned with the encoder."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array


class Temperature(nn.Module):
    """A positive scalar by which similarities are divided, kept in ``[minimum, maximum]``.

    The parameter is its logarithm. At a bound the gradient that would push further outwards is
    dropped and the one that leads back passes, so that the value can return.

    Example:
        >>> module = Temperature(initial=0.07)
        >>> variables = module.init(jax.random.key(0))
        >>> round(float(module.apply(variables)), 4)
        0.07

    Attributes:
        initial: the first value, within the bounds.
        minimum: the lower bound, above 0; 0.01 is CLIP's.
        maximum: the upper bound.

    Reference:
        Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021
        (there the reciprocal: exp(logit_scale), clipped at 100).
    """

    initial: float = 0.07
    minimum: float = 0.01
    maximum: float = 10.0

    @nn.compact
    def __call__(self) -> Array:
        """The temperature, a float32 scalar.

        Raises:
            ValueError: if not 0 < minimum <= initial <= maximum.
        """
        if not 0 < self.minimum <= self.initial <= self.maximum < math.inf:
            raise ValueError(
                "expected 0 < minimum <= initial <= maximum, "
                f"got {self.minimum}, {self.initial}, {self.maximum}"
            )
        start = nn.initializers.constant(math.log(self.initial))
        log_temperature = self.param("log_temperature", start, (), jnp.float32)
        low, high = math.log(self.minimum), math.log(self.maximum)
        return jnp.exp(_keep_between(log_temperature, low, high))


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _keep_between(x: Array, low: float, high: float) -> Array:
    return jnp.clip(x, low, high)


def _keep_between_forward(x: Array, low: float, high: float) -> tuple[Array, Array]:
    return jnp.clip(x, low, high), x


def _keep_between_backward(low: float, high: float, x: Array, gradient: Array) -> tuple[Array]:
    # Descent moves against the gradient: at the lower bound a positive one leads outwards.
    outwards = ((x <= low) & (gradient > 0)) | ((x >= high) & (gradient < 0))
    return (jnp.where(outwards, 0.0, gradient),)


_keep_between.defvjp(_keep_between_forward, _keep_between_backward)
