"""A temperature that is learned with the encoder."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array


class Temperature(nn.Module):
    """A positive scalar by which similarities are divided, kept in `[minimum, maximum]`.

    The parameter is its logarithm. The value is clipped, but its derivative is not: it is that of the
    exponential at the bound, so that gradients of several losses, devices or micro-batches add up to
    the gradient of their sum. Keeping the parameter itself within bounds is left to the optimizer,
    after the update, as in CLIP's code: `jaxcon.training.optimizers.keep_between` with `bounds`.

    Example:
      >>> import optax
      >>> from jaxcon.training.optimizers import keep_between
      >>> module = Temperature(initial=0.07)
      >>> variables = module.init(jax.random.key(0))
      >>> round(float(module.apply(variables)), 4)
      0.07
      >>> optimizer = keep_between(optax.adamw(1e-3), module.bounds)

    Attributes:
      initial: the initial value, within the bounds.
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
        """Returns the temperature, a float32 scalar.

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
        return jnp.exp(_clipped(log_temperature, *self.bounds["log_temperature"]))

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """Bounds of the parameter, by its name."""
        return {"log_temperature": (math.log(self.minimum), math.log(self.maximum))}


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _clipped(x: Array, low: float, high: float) -> Array:
    return jnp.clip(x, low, high)


@_clipped.defjvp
def _clipped_jvp(
    low: float, high: float, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    # A derivative that looked at its cotangent's sign would not be linear.
    return _clipped(primals[0], low, high), tangents[0]
