"""The optimizers that a flag can name: one list, from which flags, help and default rates follow."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from jaxcon.training import optimizers


class Rule(NamedTuple):
    """An update rule of a flag.

    Attributes:
      make: `make(schedule, *, weight_decay, clip_norm)`.
      rate: peak of the learning rate on images, at 256 a step.
      decay: of the weights, there.
      grows: whether the rate grows with the batch.
    """

    make: Callable[..., Any]
    rate: float
    decay: float
    grows: bool = True


OPTIMIZERS = {
    "adamw": Rule(optimizers.adamw, 2e-3, 1e-4, grows=False),
    "lars": Rule(optimizers.lars, 0.5, 1e-6),
    "sgd": Rule(optimizers.sgd, 0.3, 1e-4),
}
if TYPE_CHECKING:
    Optimizer = str
else:
    Optimizer = Literal[tuple(OPTIMIZERS)]
