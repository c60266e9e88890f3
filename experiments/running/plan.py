"""How long a run is, and in what steps: the numbers that follow from options and data."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from experiments.running.options import Machine, Training

Options = TypeVar("Options", bound=Any)  # a dataclass with the group `training`


@dataclasses.dataclass(frozen=True)
class Plan:
    """The numbers of a run that follow from its options and the size of its dataset."""

    examples: int
    batch_size: int
    epochs: int
    warmup_epochs: float

    @property
    def steps_per_epoch(self) -> int:
        return self.examples // self.batch_size

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    @property
    def warmup_steps(self) -> int:
        return min(round(self.warmup_epochs * self.steps_per_epoch), self.steps - 1)


def make_plan(training: Training, *, examples: int, devices: int) -> Plan:
    """Returns the plan; raises a ValueError if batch, dataset and devices do not fit together."""
    batch_size = training.batch_size
    assert batch_size is not None
    assert training.epochs is not None
    assert training.warmup_epochs is not None
    if batch_size > examples:
        raise ValueError(
            f"--batch-size={batch_size}: larger than the {examples} training images; "
            f"choose at most {examples}"
        )
    if batch_size < 2 or batch_size % devices:
        below, above = batch_size - batch_size % devices, batch_size + -batch_size % devices
        near = [str(n) for n in dict.fromkeys((below, above)) if 2 <= n <= examples]
        proposal = f"; choose {' or '.join(near)}" if near else ""
        raise ValueError(
            f"--batch-size={batch_size}: expected a multiple of the {devices} devices, at least 2"
            f"{proposal}"
        )
    plan = Plan(examples, batch_size, training.epochs, training.warmup_epochs)
    if plan.steps >= 2**31:  # they are counted in int32
        raise ValueError(
            f"--epochs={training.epochs}: {plan.steps:,} steps; choose at most "
            f"{2**31 // plan.steps_per_epoch:,}"
        )
    return plan


def evaluation_steps(machine: Machine, steps_per_epoch: int) -> int:
    """Returns the steps between scores while it trains, at least 1; of an epoch if there are none.

    Example:
      >>> evaluation_steps(Machine(evaluate_every=0.5), 9)
      4
    """
    return max(1, round((machine.evaluate_every or 1) * steps_per_epoch))


def share_batch(config: Options, resolve: Callable[[Options], Options], *, devices: int) -> Options:
    """Returns the resolved configuration, with a default batch that the devices can share.

    Args:
      config: configuration from the command line.
      resolve: fills in what was left open.
      devices: number of devices.
    """
    resolved = resolve(config)
    batch_size = resolved.training.batch_size
    if config.training.batch_size is not None or batch_size % devices == 0:
        return resolved
    shared = max(devices, batch_size - batch_size % devices)
    training = dataclasses.replace(config.training, batch_size=shared)
    return resolve(dataclasses.replace(config, training=training))


def default_batch(largest: int, examples: int) -> int:
    """Returns the recipe's batch size, halved until the dataset fills two batches.

    Example:
      >>> default_batch(512, 300)
      128
    """
    while largest > 2 and 2 * largest > examples:
        largest //= 2
    return largest
