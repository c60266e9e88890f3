"""The optimizers that a flag can name: flags, help and default rates all follow from one table."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from jaxcon.training import optimizers


class Rule(NamedTuple):
    """An update rule that a flag can name.

    Attributes:
      make: `make(schedule, *, weight_decay, clip_norm)`.
      rate: default peak learning rate on images, at a batch of 256.
      decay: default weight decay on images.
      grows: whether the default rate grows in proportion to the batch.
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
