"""The precisions in which a flag can have a loss multiply; what each costs: docs/precision.md."""

from typing import TYPE_CHECKING, Literal

import jax.numpy as jnp
from jax import lax

from jaxcon.typing import Precision

PRECISIONS: dict[str, Precision] = {
    "highest": lax.Precision.HIGHEST,
    "high": lax.Precision.HIGH,
    "bf16": jnp.bfloat16,
}
if TYPE_CHECKING:
    LossPrecision = str
else:
    LossPrecision = Literal[tuple(PRECISIONS)]


def loss_precision(precision: str) -> str:
    """Returns the name of the precision of a loss for that of the encoder, "f32" or "bf16".

    The losses would see no difference: heads return float32, whatever they computed in. But what an
    encoder rounded to bfloat16 has lost about as much as products in bfloat16 lose:
    `jaxcon.losses._rows.default_precision`.
    """
    return "bf16" if precision == "bf16" else "highest"
