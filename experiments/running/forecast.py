"""`--plan`: what a command will need on machines that are not here, before any of them is rented.

The very step of the run is compiled for them, on shapes alone. No data is read and nothing is run.
"""

import dataclasses
import functools
import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments.running.facts import count_parameters, duration
from experiments.running.memory import check_chunks
from experiments.running.options import Machine, flag
from experiments.running.plan import Plan, make_plan, share_batch
from experiments.running.process import say
from experiments.running.run import Task, abstract_state, make_step
from experiments.running.sources import fill_crop_scale, images_of
from experiments.running.stand_in import ROWS
from jaxcon.planning.forecast import Forecast, forecast
from jaxcon.planning.topologies import ENVIRONMENT, chip_of, devices
from jaxcon.training.devices import batch_sharding, make_mesh
from jaxcon.training.digests import state_bytes
from jaxcon.training.files import absolute, told, write_text

_GIB = 2**30


class Rehearsal(NamedTuple):
    """A command, understood for machines that are not here.

    Attributes:
      config: the options with everything filled in.
      plan: how long to train.
      task: what is learned.
      batch: shapes of a batch.
    """

    config: Any
    plan: Plan
    task: Task
    batch: Any


def show_plan(config: Any, experiment: Any) -> None:
    """Compiles a command's step for other machines and prints what that tells.

    Args:
      config: configuration from the command line, with `machine.plan`.
      experiment: an `Experiment` of the runner.

    Raises:
      ValueError: for anything the user can fix, such as a compiler that is missing.
    """
    topology = config.machine.plan
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")
    experiment.check(config)
    if (file := config.machine.plan_json) is not None:
        with told(file, option="--plan-json"):
            write_text(absolute(file), "{}\n")  # now, before minutes of compiling
    try:
        chip, there = chip_of(topology), devices(topology)
    except (ModuleNotFoundError, ValueError) as error:
        raise ValueError(f"--plan={topology}: {error}") from error
    ready = rehearse(config, experiment, len(there))
    say(
        f"compiling a step for {len(there):,} x {chip.name}; an encoder of photographs takes minutes"
    )
    began = time.monotonic()
    found = compile_step(ready, there, topology)
    taken = time.monotonic() - began
    for line in lines(ready, found):
        say(line)
    say(f"compiled in {duration(taken)}; every time is an estimate, nothing was run")
    tried = []
    if not found.fits:
        for machine in others(config.machine, ready.plan.batch_size // len(there), _shares(ready)):
            try:
                again = rehearse(
                    dataclasses.replace(config, machine=machine), experiment, len(there)
                )
            except ValueError:  # chunks of an encoder with batch norm
                continue
            tried.append((flags(machine, config.machine), compile_step(again, there, topology)))
            say(_tried(*tried[-1]))
            if tried[-1][1].fits:
                break
        else:
            say("none of the flags tried makes it fit; take more chips or a smaller --batch-size")
    if config.machine.plan_json is not None:
        record = as_json(ready, found) | {
            "tried": [{"flags": " ".join(names), **_numbers(other)} for names, other in tried]
        }
        write_text(absolute(config.machine.plan_json), json.dumps(record, indent=2) + "\n")


def rehearse(config: Any, experiment: Any, number: int) -> Rehearsal:
    """Returns what the command would train on so many devices; reads no data.

    Raises:
      ValueError: if batch, devices and options do not fit together.
    """
    machine = dataclasses.replace(config.machine, data_workers=0, bad_images="error")
    config = dataclasses.replace(config, machine=machine)
    config, dataset, examples, side = experiment.imagine(config, config.machine.plan_examples)
    config = fill_crop_scale(config, images_of(dataset(ROWS).train), experiment.least)
    resolve = functools.partial(experiment.resolve, examples=examples, side=side)
    path = Path(os.devnull) / "plan"  # no run is there, whose tokenizer would be read
    rows = dataclasses.replace(config.training, batch_size=ROWS)
    small = experiment.task(
        resolve(dataclasses.replace(config, training=rows)), dataset(ROWS), None, path
    )
    config = share_batch(config, resolve, devices=number)
    plan = make_plan(config.training, examples=examples, devices=number)
    check_chunks(config.machine, batch_size=plan.batch_size, devices=number)
    task = experiment.task(config, dataset(examples), None, path)
    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((plan.batch_size, *leaf.shape[1:]), leaf.dtype),
        next(small.batches(0, None)),
    )
    return Rehearsal(config, plan, task, batch)


def compile_step(ready: Rehearsal, there: Sequence[Any], topology: str) -> Forecast:
    """Compiles the step of the run for the devices of a topology."""
    mesh = make_mesh(there)
    state = abstract_state(ready.config.training, ready.plan, ready.task)
    key = jax.eval_shape(lambda: jax.random.key(0))
    step, shardings = make_step(
        ready.config.training, ready.config.machine, ready.task, state, mesh
    )
    return forecast(
        step,
        jax.tree.map(_placed, state, shardings),
        jax.tree.map(lambda leaf: _placed(leaf, batch_sharding(mesh)), ready.batch),
        _placed(key, jax.NamedSharding(mesh, jax.P())),
        topology=topology,
    )


def _placed(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def others(machine: Machine, images: int, shares: bool) -> Iterator[Machine]:
    """Yields the options with flags that save memory: one of them, then two, then all.

    Example:
      >>> [flags(other, Machine()) for other in others(Machine(), images=64, shares=False)]
      [['--remat'], ['--chunk-size=16'], ['--remat', '--chunk-size=16']]

    Args:
      machine: the options as they are.
      images: how many images a device has.
      shares: whether dividing the state would save enough to be tried.
    """
    choices = {"remat": True, "chunk_size": _chunk(images), "shard_state": shares}
    free = {name: value for name, value in choices.items() if value and not getattr(machine, name)}
    for count in range(1, len(free) + 1):
        for names in itertools.combinations(free, count):
            yield dataclasses.replace(machine, **{name: free[name] for name in names})


def _shares(ready: Rehearsal) -> bool:
    """Returns whether the state takes more than a tenth of a chip's memory."""
    state = abstract_state(ready.config.training, ready.plan, ready.task)
    return state_bytes(state) > chip_of(ready.config.machine.plan).memory * _GIB / 10


def _chunk(images: int) -> int | None:
    """Returns about a quarter of a device's images, in equal parts; None if there are too few."""
    sizes = [size for size in range(1, images // 4 + 1) if images % size == 0]
    return max(sizes, default=None)


def flags(machine: Machine, before: Machine) -> list[str]:
    """Returns what one has to type to come from one machine's options to another's.

    Example:
      >>> flags(Machine(remat=True, chunk_size=32), Machine())
      ['--remat', '--chunk-size=32']
    """
    typed = []
    for field in dataclasses.fields(machine):
        value = getattr(machine, field.name)
        if value != getattr(before, field.name):
            typed.append(flag(field.name) if value is True else f"{flag(field.name)}={value}")
    return typed


def _size(count: float) -> str:
    """Returns a number of bytes in words.

    Example:
      >>> _size(3 * 2**29), _size(12_345_678)
      ('1.5 GiB', '11.8 MiB')
    """
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


def _needed(found: Forecast) -> str:
    """Returns what a step holds; of one that was refused at least that."""
    least = "at least " if found.memory is None else ""
    return least + _size(found.chip.memory * _GIB if found.needed is None else found.needed)


def _tried(names: Sequence[str], found: Forecast) -> str:
    fits = "fits" if found.fits else "does not fit"
    time = "" if found.ms is None else f", {found.ms:,.1f} ms a step"
    return f"with {' '.join(names)}: {_needed(found)}, {fits}{time}"


def lines(ready: Rehearsal, found: Forecast) -> list[str]:
    """Returns the plan as a table for a terminal."""
    task, plan, chip = ready.task, ready.plan, found.chip
    height, width, _ = task.network.image_shape
    rows = [
        ("machine", f"{found.devices:,} x {chip.name}"),
        (
            "network",
            f"{task.encoder} with {task.beside}, {count_parameters(task.init):,} parameters",
        ),
        ("batch", f"{plan.batch_size:,} images of {width} x {height} pixels"),
        (
            "memory of a chip",
            f"{_needed(found)} of {chip.memory:,.1f} GiB: "
            f"{'it fits' if found.fits else 'IT DOES NOT FIT'}",
        ),
    ]
    if found.memory is not None:
        rows += [
            ("  state and batch", _size(found.memory.arguments)),
            ("  temporaries", _size(found.memory.temporaries)),
        ]
    numbers = _numbers(found)
    if found.ms:
        rows.append(("step", f"{found.ms:,.1f} ms, without what is sent"))
        rows.append(("  of it the loss", f"{numbers['loss_share']:.1%}"))
        rows.append(("images a second", f"{1e3 * plan.batch_size / found.ms:,.0f}"))
    if found.flop:
        share = f", {found.share_of_peak:.0%} of its peak" if found.share_of_peak else ""
        rows.append(("products of a chip", f"{found.flop / 1e12:,.2f} TFLOP a step{share}"))
    for kind, (times, sent) in (found.traffic or {}).items():
        rows.append((kind, f"{times:,} a step, {_size(sent)} sent by a chip"))
    if found.link_ms:
        rows.append(("sending", f"{found.link_ms:,.1f} ms at the full speed of the links"))
    if found.ms:
        took = duration(plan.steps * found.ms / 1e3)
        rows.append(
            (
                "run",
                f"{plan.epochs:,} epochs of {plan.examples:,} images, {plan.steps:,} steps: {took}",
            )
        )
    wide = max(len(name) for name, _ in rows)
    return [f"{name:{wide}}  {text}" for name, text in rows]


def as_json(ready: Rehearsal, found: Forecast) -> dict[str, Any]:
    """Returns the plan as what a file can hold; times are milliseconds, memory is in bytes."""
    plan = ready.plan
    return {
        "topology": ready.config.machine.plan,
        "devices": found.devices,
        "encoder": ready.task.encoder,
        "parameters": count_parameters(ready.task.init),
        "image_shape": list(ready.task.network.image_shape),
        "batch_size": plan.batch_size,
        "epochs": plan.epochs,
        "examples": plan.examples,
        "steps": plan.steps,
        "hours": plan.steps * found.ms / 3.6e6 if found.ms else None,
        "images_per_second": 1e3 * plan.batch_size / found.ms if found.ms else None,
        **_numbers(found),
    }


def _numbers(found: Forecast) -> dict[str, Any]:
    memory = found.memory
    return {
        "fits": found.fits,
        "needed": found.needed,
        "granted": int(found.chip.memory * _GIB),
        "arguments": memory and memory.arguments,
        "temporaries": memory and memory.temporaries,
        "ms": found.ms,
        "loss_share": found.loss_ms / found.ms if found.ms and found.loss_ms is not None else None,
        "link_ms": found.link_ms,
        "flop": found.flop,
        "share_of_peak": found.share_of_peak,
        "collectives": {kind: each._asdict() for kind, each in (found.traffic or {}).items()},
    }
