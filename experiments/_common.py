"""What every experiment does around its loss: set up, resume, train, stop.

An experiment hands over `init` (how its variables begin), `loss_fn` and batches; it gets a `Run`.
"""

import dataclasses
import hashlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax

from experiments._options import Machine, Training
from jaxcon.encoders import Temperature
from jaxcon.training import optimizers
from jaxcon.training.checkpoint import KEPT, Checkpoints, Workdir, state_bytes
from jaxcon.training.devices import batch_sharding, make_mesh, replicate, select_accelerator
from jaxcon.training.files import absolute
from jaxcon.training.loop import fit
from jaxcon.training.state import TrainState, create_state
from jaxcon.training.step import LossFn, make_train_step, shard_step
from jaxcon.training.workdir import saved_steps

Options = TypeVar("Options", bound=Any)  # a dataclass with the group `training`

_LONGEST_NAME = 100  # bytes of a run's folder


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


class Run(NamedTuple):
    """What training made: variables for `apply_fn` before and after, on the host."""

    before: dict[str, Any]
    after: dict[str, Any]
    finished: bool


def jit_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function compiled in a hurry: for what is called once, not for what is fast."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def say(text: str) -> None:
    """Print a line of the main process, now."""
    if jax.process_index() == 0:
        print(text, flush=True)


def workdir_path(
    machine: Machine, experiment: str, dataset: str, start_from: Path | None = None
) -> Path:
    """Return the folder asked for, or `runs/EXPERIMENT-DATASET`, with the run that it starts from.

    >>> print(workdir_path(Machine(), "simclr", "folder:/data/my birds/"))
    runs/simclr-folder-data-my-birds
    >>> print(workdir_path(Machine(), "simclr", "digits", Path("runs/simclr-digits")))
    runs/simclr-digits-from-simclr-digits
    """
    after = f"-from-{absolute(start_from).name}" if start_from else ""
    name = "-".join(re.findall(r"[\w.]+", f"{experiment}-{dataset}"))
    return machine.workdir or Path("runs") / _file_name(f"{name}{after}")


def _file_name(text: str) -> str:
    """Return a text as the name of a folder; of a long one the start, and a digest of the whole.

    File systems allow 255 bytes, encrypted ones 143.

    >>> len(_file_name("ä" * 1000)) < 100, _file_name("ä" * 1000) == _file_name("ä" * 1001)
    (True, False)
    """
    if len(text.encode()) <= _LONGEST_NAME:
        return text
    start = text.encode()[: _LONGEST_NAME - 9].decode(errors="ignore")
    return f"{start}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def quiet_libraries() -> None:
    """Leave the console to the run: they narrate every save, and print what they raise, too.

    What Pillow warns of, such as damaged notes of a camera, names no file; what it cannot read is an
    error of ours.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    for name in ("absl", "asyncio", "orbax", "matplotlib"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def select_devices(machine: Machine) -> list[Any]:
    """Return the devices of the run; on CPU one, unless more are asked for."""
    devices = select_accelerator(machine.accelerator, num_devices=machine.num_devices)
    single = machine.num_devices is None and jax.process_count() == 1
    return devices[:1] if single and devices[0].platform == "cpu" else devices


def make_plan(training: Training, *, examples: int, devices: int) -> Plan:
    """Return the plan, or raise a ValueError where batch, dataset and devices do not fit."""
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


def share_batch(config: Options, resolve: Callable[[Options], Options], *, devices: int) -> Options:
    """Return the resolved configuration, its default batch one that the devices can share.

    Args:
        config: of the command line.
        resolve: fills in what was left open.
        devices: number of them.
    """
    resolved = resolve(config)
    batch_size = resolved.training.batch_size
    if config.training.batch_size is not None or batch_size % devices == 0:
        return resolved
    shared = max(devices, batch_size - batch_size % devices)
    training = dataclasses.replace(config.training, batch_size=shared)
    return resolve(dataclasses.replace(config, training=training))


def abstract_state(
    training: Training, plan: Plan, init: Callable[[jax.Array], Any], apply_fn: Callable[..., Any]
) -> Any:
    """Return the shapes of the state that `pretrain` trains, without making it."""

    def begin(key: jax.Array) -> Any:
        return _first_state(training, plan, init(key), apply_fn)

    return jax.eval_shape(begin, jax.random.key(0))


def checkpoint_space(state: Any, path: Path) -> int:
    """Return how many bytes the checkpoints of a run will take, beyond those that are there.

    Args:
        state: or its shapes.
        path: of the run's folder.
    """
    missing = KEPT + 1 - len(saved_steps(absolute(path) / "checkpoints"))
    return max(1, missing) * state_bytes(state)


def make_optimizer(training: Training, plan: Plan) -> Any:
    """Return the optimizer that the options name."""
    assert training.learning_rate is not None
    assert training.optimizer is not None
    schedule = optimizers.warmup_cosine(
        training.learning_rate, warmup_steps=plan.warmup_steps, total_steps=plan.steps
    )
    build = getattr(optimizers, training.optimizer)
    optimizer = build(schedule, weight_decay=training.weight_decay, clip_norm=training.clip_norm)
    return optimizers.keep_between(optimizer, Temperature().bounds)


def pretrain(
    workdir: Workdir,
    training: Training,
    machine: Machine,
    plan: Plan,
    *,
    devices: list[Any],
    init: Callable[[jax.Array], Any],
    apply_fn: Callable[..., Any],
    loss_fn: LossFn,
    batches: Callable[[int, Any], Iterator[Any]],
    chance: float,
    start: Mapping[str, Any] | None = None,
) -> Run:
    """Train to the end, from the newest intact checkpoint where there is one.

    Args:
        workdir: of `open_workdir`.
        training: how.
        machine: where.
        plan: how long.
        devices: to share the batch.
        init: from a key to the variables.
        apply_fn: kept in the state for the evaluation.
        loss_fn: of `jaxcon.training.step`, over the mapped axis "batch".
        batches: from a step and a sharding to the batches from that step on.
        chance: loss at chance level.
        start: variables to start from in place of those of `init`.

    Returns:
        The variables of `init`, and those after training, averaged where the run keeps an average.
    """
    mesh = make_mesh(devices)
    keys = jax.random.split(jax.random.key(training.seed))
    variables = jax.device_get(jit_once(init)(keys[0]))
    first = variables if start is None else {**variables, **start}
    state = replicate(_first_state(training, plan, first, apply_fn), mesh)
    step = shard_step(make_train_step(loss_fn, ema_decay=training.ema), mesh)
    with Checkpoints(workdir.checkpoints, say=say) as checkpoints:
        restored = checkpoints.restore(state)
        if restored is not None:
            state = restored[1]
            say(f"resumed at step {restored[0]} of {plan.steps}")
        result = fit(
            state,
            lambda state, batch: step(state, batch, keys[1]),
            lambda start: batches(start, batch_sharding(mesh)),
            steps=plan.steps,
            batch_size=plan.batch_size,
            chance=chance,
            folder=workdir.path,
            checkpoints=checkpoints,
            checkpoint_every=machine.checkpoint_every or max(1, plan.steps // 20),
        )
    if 2 * (skipped := int(result.state.skipped)) > int(result.state.step):
        raise FloatingPointError(
            f"{skipped} of {int(result.state.step)} updates were not taken, for losses, gradients, "
            "weights or statistics were not finite; try a smaller --learning-rate, or --precision=f32"
        )
    if not result.finished:
        say(
            f"stopped after step {int(result.state.step)} of {plan.steps}; the same command goes on"
        )
    after = jax.device_get(result.state.variables(average=True))
    return Run(variables, after, result.finished)


def _first_state(
    training: Training, plan: Plan, variables: Any, apply_fn: Callable[..., Any]
) -> TrainState:
    optimizer = make_optimizer(training, plan)
    return create_state(variables, optimizer, apply_fn=apply_fn, average=training.ema is not None)
