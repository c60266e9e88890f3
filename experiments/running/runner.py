"""From the options of a command to its page: the same stages, in the same order, for every experiment.

options -> devices, data -> all options -> plan -> task -> folder -> run -> scores -> page. Each stage
is a function from frozen values to frozen values; an `Experiment` provides those that differ.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from experiments.running.ends import run_errors, usage_errors
from experiments.running.facts import Setup, announce, count_parameters, facts
from experiments.running.forecast import show_plan
from experiments.running.memory import check_chunks
from experiments.running.options import flat
from experiments.running.plan import Plan, make_plan, share_batch
from experiments.running.process import say, select_devices
from experiments.running.results import show_if_finished
from experiments.running.run import Task, abstract_state, checkpoint_space, pretrain
from experiments.running.sources import fill_crop_scale, images_of
from experiments.running.stand_in import Imagined
from experiments.running.start import Start, check_fits, load_start
from experiments.running.workdir import check_place, open_run, workdir_path
from jaxcon.data.skipped import read_skipped
from jaxcon.stores import local
from jaxcon.training.same_folder import check_same_folder
from jaxcon.training.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What one experiment contributes to the stages that all share.

    Its options are a frozen dataclass of groups: what is learned from (with the field `dataset`), the
    loss, `training` and `machine`.

    Attributes:
      command: its name in config.json.
      folder: maps options to the name of its runs' folder, before the dataset's name.
      check: raises a ValueError for an option that cannot work.
      load: maps options to the dataset.
      resolve: maps options, the number of training images and their side to complete options.
      imagine: maps options, and a number of training images if one is given, to options, dataset
        (a function of the number of its images) and number that a plan takes, reading nothing.
      least: least share of a photograph in a training crop, unless the options say otherwise.
      task: maps complete options, dataset, run to start from and folder to what is learned.
      show: prints the scores of results.json.
    """

    command: str
    folder: Callable[[Any], str]
    check: Callable[[Any], None]
    load: Callable[[Any], Any]
    resolve: Callable[[Any, int, int], Any]
    imagine: Callable[[Any, int | None], Imagined]
    least: float
    task: Callable[[Any, Any, Start | None, Path], Task]
    show: Callable[[Mapping[str, Any]], None]


@dataclasses.dataclass(frozen=True)
class Ready:
    """All that a run needs, checked before anything in its folder changes.

    Attributes:
      config: the options with everything filled in.
      devices: the devices that share the batch.
      dataset: images, or images with captions.
      plan: how long to train.
      task: what is learned.
      start: the run whose weights it starts from, or None.
      workdir: its folder.
    """

    config: Any
    devices: Sequence[Any]
    dataset: Any
    plan: Plan
    task: Task
    start: Start | None
    workdir: Workdir


def groups(config: Any) -> dict[str, Any]:
    """Returns the option groups of a configuration by name; those on data come first."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def dataset_name(config: Any) -> str:
    """Returns the dataset that the options name."""
    return next(iter(groups(config).values())).dataset


def run(config: Any, experiment: Experiment) -> None:
    """Trains, evaluates and reports; or resumes; or shows the table of a finished run, or a plan.

    Args:
      config: configuration from the command line.
      experiment: what it trains.
    """
    if config.machine.plan is not None:
        with usage_errors():
            show_plan(config, experiment)
        return
    with usage_errors():
        ready = prepare(config, experiment)
        if show_if_finished(ready.workdir, experiment.show):
            return
    setup = describe(ready)
    for line in (ready.dataset.summary(), *ready.task.notes(), *announce(setup)):
        say(line)
    config, workdir = ready.config, ready.workdir
    with run_errors(workdir, ready.dataset):
        trained = pretrain(
            workdir,
            config.training,
            config.machine,
            ready.plan,
            ready.task,
            devices=list(ready.devices),
            start=ready.start and ready.start.variables,
        )
        if trained.finished and jax.process_index() == 0:
            ready.task.conclude(
                workdir,
                trained,
                facts=facts(setup, workdir.path / "times.json", read_skipped(workdir.path)),
                settings=flat(*groups(config).values()) | dict(ready.task.own),
            )


def prepare(config: Any, experiment: Experiment) -> Ready:
    """Returns everything a run needs, after every check.

    Raises:
      ValueError: for anything the user can fix.
    """
    experiment.check(config)
    start_from, name = config.training.start_from, dataset_name(config)
    path = local(workdir_path(config.machine, experiment.folder(config), name, start_from))
    check_place(path)
    devices = select_devices(config.machine)
    check_same_folder(path, say=say)
    dataset = experiment.load(config)
    examples, side = len(dataset.train), max(images_of(dataset.train).image_shape[:2])
    config = fill_crop_scale(config, images_of(dataset.train), experiment.least)
    config = share_batch(
        config, lambda options: experiment.resolve(options, examples, side), devices=len(devices)
    )
    plan = make_plan(config.training, examples=examples, devices=len(devices))
    check_chunks(config.machine, batch_size=plan.batch_size, devices=len(devices))
    start = load_start(start_from, path)
    task = experiment.task(config, dataset, start, path)
    # Also: are the images of a size that the encoder takes?
    state = abstract_state(config.training, plan, task)
    check_fits(start, task.network, task.init)
    decides = [group for key, group in groups(config).items() if key != "machine"]
    workdir = open_run(
        path,
        experiment=experiment.command,
        options=flat(*decides) | dict(task.own),
        network=task.network,
        dataset=dataset,
        start=start,
        needed=checkpoint_space(state, path),
    )
    return Ready(config, devices, dataset, plan, task, start, workdir)


def describe(ready: Ready) -> Setup:
    """Returns what is known about a run before its first step."""
    dataset, task = ready.dataset, ready.task
    return Setup(
        encoder=task.encoder,
        beside=task.beside,
        parameters=count_parameters(task.init),
        image_shape=task.network.image_shape,
        images=(len(dataset.train), len(dataset.validation), len(dataset.test)),
        with_what=task.with_what,
        plan=ready.plan,
        devices=ready.devices,
    )
