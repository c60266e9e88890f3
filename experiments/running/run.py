"""A run of an experiment: from a task and a plan to trained variables, resumed where it stopped.

Frozen values go in, a `Run` comes out; a `Task` says what is learned, and from what. The loop is in
`jaxcon.training.loop`; short runs without a folder, as in the study of uncertainty, use its `advance`
directly.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.running.optimizers import OPTIMIZERS
from experiments.running.options import Machine, Training
from experiments.running.plan import Plan, evaluation_steps
from experiments.running.process import jit_once, say
from experiments.running.start import Network
from jaxcon.encoders import Temperature
from jaxcon.stores import mirror_of
from jaxcon.training import optimizers
from jaxcon.training.checkpoint import KEPT, Checkpoints
from jaxcon.training.devices import batch_sharding, fetch, make_mesh, replicate
from jaxcon.training.digests import state_bytes
from jaxcon.training.files import absolute
from jaxcon.training.loop import fit
from jaxcon.training.sharded import bytes_on_a_device, make_sharded_step, state_sharding
from jaxcon.training.state import TrainState, create_state
from jaxcon.training.step import LossFn, Step, ValueAndGrad, make_train_step, shard_step
from jaxcon.training.workdir import Workdir, saved_steps


@dataclasses.dataclass(frozen=True)
class Task:
    """What is learned, from what, and what becomes of it.

    Attributes:
      network: what is trained, as config.json describes it.
      encoder: what the images go through, in one word.
      beside: what is trained with it.
      with_what: what the images come with, such as "10 classes".
      init: maps a key to the variables.
      apply_fn: the model's, kept in the state for evaluation.
      loss_fn: a loss for `jaxcon.training.step`, over the mapped axis "batch".
      batches: maps a step and a sharding to the batches from that step on.
      chance: loss of embeddings that carry no information.
      conclude: `(workdir, run, *, facts, settings)`: evaluates and writes the page.
      value_and_grad: its value and gradient in chunks; None: at once.
      evaluate: maps the devices to scores of a state by name, for `fit`; None if it has none.
      own: what the user wrote, by its role, as config.json describes it.
      notes: to say before training begins.
    """

    network: Network
    encoder: str
    beside: str
    with_what: str
    init: Callable[..., Any]
    apply_fn: Callable[..., Any]
    loss_fn: LossFn
    batches: Callable[[int, Any], Iterator[Any]]
    chance: float
    conclude: Callable[..., None]
    value_and_grad: ValueAndGrad | None = None
    evaluate: Callable[[Mesh], Callable[[TrainState], Mapping[str, float]]] | None = None
    own: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: Callable[[], Iterable[str]] = tuple


@dataclasses.dataclass(frozen=True)
class Run:
    """What training made: variables for `apply_fn` before and after, on the host.

    Attributes:
      before: those of `Task.init`.
      after: those after training.
      finished: whether it reached the last step.
      devices: the devices of this process that trained, for what follows; none: JAX's first.
    """

    before: dict[str, Any]
    after: dict[str, Any]
    finished: bool
    devices: Sequence[Any] = ()

    @property
    def mesh(self) -> Mesh:
        """The devices of this process that share what follows training."""
        return make_mesh(self.devices or jax.local_devices()[:1])

    def on_devices(self) -> "Run":
        """Returns the run with its variables on each device of the mesh."""
        before, after = replicate((self.before, self.after), self.mesh)
        return dataclasses.replace(self, before=before, after=after)


def abstract_state(training: Training, plan: Plan, task: Task) -> Any:
    """Returns the shapes of the state that `pretrain` trains, without making it."""
    create = _creates(training, plan, task)
    return jax.eval_shape(lambda key: create(task.init(key)), jax.random.key(0))


def checkpoint_space(state: Any, path: Path) -> int:
    """Returns how many more bytes the checkpoints of a run will take than those that exist.

    Args:
      state: the state, or its shapes.
      path: path of the run's folder.
    """
    path = absolute(path)
    here = 0 if mirror_of(path) is not None else len(saved_steps(path / "checkpoints"))
    missing = KEPT + 1 - here
    return max(1, missing) * state_bytes(state)


def make_optimizer(training: Training, plan: Plan) -> Any:
    """Returns the optimizer that the options name."""
    assert training.learning_rate is not None
    assert training.optimizer is not None
    schedule = optimizers.warmup_cosine(
        training.learning_rate, warmup_steps=plan.warmup_steps, total_steps=plan.steps
    )
    make = OPTIMIZERS[training.optimizer].make
    optimizer = make(schedule, weight_decay=training.weight_decay, clip_norm=training.clip_norm)
    return optimizers.keep_between(optimizer, Temperature().bounds)


def make_step(
    training: Training, machine: Machine, task: Task, state: Any, mesh: Mesh
) -> tuple[Step, Any]:
    """Returns the step that `pretrain` takes, and where it has the arrays of its state.

    Args:
      training: how to train.
      machine: decides whether the state is in shards or whole on every device.
      task: what to learn.
      state: the state, or its shapes.
      mesh: the devices that share the batch.

    Returns:
      The step, and the state with a `NamedSharding` in place of each array.
    """
    settings: Any = {"value_and_grad": task.value_and_grad, "ema_decay": training.ema}
    if machine.shard_state:
        shardings = state_sharding(state, mesh)
        return make_sharded_step(task.loss_fn, shardings, **settings), shardings
    everywhere = NamedSharding(mesh, PartitionSpec())
    step = shard_step(make_train_step(task.loss_fn, **settings), mesh)
    return step, jax.tree.map(lambda _: everywhere, state)


def pretrain(
    workdir: Workdir,
    training: Training,
    machine: Machine,
    plan: Plan,
    task: Task,
    *,
    devices: list[Any],
    start: Mapping[str, Any] | None = None,
) -> Run:
    """Trains to the end, from the newest intact checkpoint if there is one.

    Args:
      workdir: from `open_workdir`.
      training: how to train.
      machine: where to train.
      plan: how long to train.
      task: what to learn.
      devices: the devices that share the batch.
      start: variables to start from instead of those of `task.init`.

    Returns:
      The variables of `task.init`, and those after training, averaged if the run keeps an average.
    """
    mesh = make_mesh(devices)
    keys = jax.random.split(jax.random.key(training.seed))
    variables = jax.device_get(jit_once(task.init)(keys[0]))
    first = variables if start is None else {**variables, **start}
    create = _creates(training, plan, task)
    step, shardings = make_step(training, machine, task, jax.eval_shape(create, first), mesh)
    if machine.shard_state:  # made in shards, as a device may not hold all of it
        state = jax.jit(create, out_shardings=shardings)(first)
        _tell_shares(state, shardings, mesh)
    else:
        state = replicate(create(first), mesh)
    evaluate = None
    if machine.evaluate_every is not None and task.evaluate is not None:
        evaluate = task.evaluate(mesh)
    with Checkpoints(workdir.checkpoints, say=say) as checkpoints:
        restored = checkpoints.restore(state)
        if restored is not None:
            state = restored[1]
            say(f"resumed at step {restored[0]} of {plan.steps}")
        result = fit(
            state,
            lambda state, batch: step(state, batch, keys[1]),
            lambda start: task.batches(start, batch_sharding(mesh)),
            steps=plan.steps,
            batch_size=plan.batch_size,
            chance=task.chance,
            folder=workdir.path,
            checkpoints=checkpoints,
            checkpoint_every=machine.checkpoint_every or max(1, plan.steps // 20),
            evaluate=evaluate,
            evaluate_every=evaluation_steps(machine, plan.steps_per_epoch),
        )
    if 2 * (skipped := int(result.state.skipped)) > int(result.state.step):
        raise FloatingPointError(
            f"{skipped} of {int(result.state.step)} updates were not taken, because losses, "
            "gradients, weights or statistics were not finite; try a smaller --learning-rate, "
            "or --precision=f32"
        )
    if not result.finished:
        say(
            f"stopped after step {int(result.state.step)} of {plan.steps}; the same command resumes"
        )
    after = fetch(result.state.variables(average=True))
    own = [device for device in devices if device.process_index == jax.process_index()]
    return Run(variables, after, result.finished, own)


def _creates(training: Training, plan: Plan, task: Task) -> Callable[[Any], TrainState]:
    """Returns what makes the state before the first step of variables."""
    return functools.partial(
        create_state,
        optimizer=make_optimizer(training, plan),
        apply_fn=task.apply_fn,
        average=training.ema is not None,
    )


def _tell_shares(state: Any, shardings: Any, mesh: Mesh) -> None:
    whole, part = (n / 2**20 for n in (state_bytes(state), bytes_on_a_device(state, shardings)))
    say(f"state: {whole:,.1f} MiB, of which each of {mesh.size} devices holds {part:,.1f}")
