"""A run in words: what is about to be trained; afterwards on what, for how long, and with what."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

import jaxcon
from experiments.running.encoders import is_slow_on_cpu
from experiments.running.plan import Plan
from jaxcon.data.captions import PairDataset
from jaxcon.data.messages import listed, shown
from jaxcon.data.readers.own import is_own
from jaxcon.data.reading import Bad
from jaxcon.training.clock import read_times, steps_per_second

_WAIT_SHOWN = 0.01  # share of the time
_LARGE = 32  # pixels from which it matters that an encoder is slow


class Setup(NamedTuple):
    """What is known about a run before its first step.

    Attributes:
      encoder: name of the encoder's flag value.
      beside: what is trained with it.
      parameters: how many numbers are learned.
      image_shape: (height, width, channels).
      images: numbers of images in the training, validation and test splits.
      with_what: what the images come with, such as "10 classes".
      plan: steps, batches, epochs.
      devices: the devices that share a batch.
    """

    encoder: str
    beside: str
    parameters: int
    image_shape: tuple[int, int, int]
    images: tuple[int, int, int]
    with_what: str
    plan: Plan
    devices: Sequence[Any]


def count_parameters(init: Any) -> int:
    """Returns how many numbers are learned; `init` maps a key to the variables."""
    variables = jax.eval_shape(init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def announce(setup: Setup) -> list[str]:
    """Returns what to say before training begins: it may take long, and its first step compiles."""
    plan, (height, width, _) = setup.plan, setup.image_shape
    lines = [
        f"training {setup.encoder} with {setup.beside}, {setup.parameters:,} parameters, on "
        f"{setup.images[0]:,} images of {width} x {height} pixels: {_plan(plan)}, on "
        f"{_devices(setup.devices)}"
    ]
    on_cpu = setup.devices[0].platform == "cpu"
    if on_cpu and is_slow_on_cpu(setup.encoder) and max(height, width) >= _LARGE:
        lines.append(
            f"{setup.encoder} is slow on a CPU at this size; --encoder=patch_convnet takes a "
            "fraction of the time"
        )
    return lines


def facts(setup: Setup, times: Path, skipped: Sequence[Bad] = ()) -> dict[str, str]:
    """Returns what a page says about a run besides its scores.

    Args:
      setup: what was known about the run.
      times: path of its `times.json`.
      skipped: images for which others stood in.
    """
    plan, (height, width, _) = setup.plan, setup.image_shape
    train, validation, test = setup.images
    with_what = f"; {setup.with_what}" if setup.with_what else ""
    rise = f"; the learning rate rises over {_counted(plan.warmup_steps, 'step')}"
    return {
        "Data": f"{train:,} training, {validation:,} validation and {test:,} test images of "
        f"{width} x {height} pixels{with_what}",
        **({"Not read": _skipped(skipped)} if skipped else {}),
        "Network": f"{setup.encoder} with {setup.beside}, {setup.parameters:,} parameters",
        "Training": _plan(plan) + (rise if plan.warmup_steps else ""),
        "Time": _time(times, plan.batch_size),
        "Device": _devices(setup.devices),
        "Software": ", ".join(_versions()),
    }


def dataset_title(dataset: str) -> str:
    """Returns what a heading calls a dataset: of the user's own, the name, not the location.

    Example:
      >>> dataset_title("folder:/data/my birds/"), dataset_title("tar:/a/b-{0..9}.tar")
      ('my birds', 'b-{0..9}.tar')
      >>> dataset_title("cifar10")
      'cifar10'
    """
    if not is_own(dataset):
        return dataset
    path = Path(dataset.partition(":")[2]).expanduser()
    return path.name or path.resolve().name or "images"


def duration(seconds: float) -> str:
    """Returns a time as one would say it.

    Example:
      >>> duration(8.26), duration(69.7), duration(3725)
      ('8.3 s', '1 min 10 s', '1 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _plan(plan: Plan) -> str:
    steps, epochs = _counted(plan.steps, "step"), _counted(plan.epochs, "epoch")
    return f"{steps} of {plan.batch_size}, {epochs}"


def _counted(number: int, noun: str) -> str:
    """Returns a number with its noun.

    Example:
      >>> _counted(1, "step"), _counted(1200, "step")
      ('1 step', '1,200 steps')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _time(times: Path, batch_size: int) -> str:
    sessions = read_times(times)
    if not sessions:
        return "not recorded"
    taken = duration(sum(session.seconds for session in sessions))
    several = f" in {len(sessions)} sessions" if len(sessions) > 1 else ""
    rate = steps_per_second(sessions)
    speed = f", {rate * batch_size:,.0f} images/s" if rate else ""
    compiled = duration(sessions[-1].first)
    running = sum(session.seconds - session.first for session in sessions)
    share = sum(session.waited for session in sessions) / running if running > 0 else 0.0
    waits = f", {share:.0%} of it waiting for input" if share >= _WAIT_SHOWN else ""
    return f"{taken} of training{several}{speed}{waits} (compiling and the first step: {compiled})"


def _skipped(skipped: Sequence[Bad]) -> str:
    """Says which training images could not be read.

    Example:
      >>> _skipped([Bad(3, "cat/3.jpg", "image file is truncated")])
      '1 training image, for which others stood in: cat/3.jpg (image file is truncated)'
    """
    named = listed(f"{shown(bad.place)} ({bad.reason})" for bad in skipped)
    return f"{_counted(len(skipped), 'training image')}, for which others stood in: {named}"


def _devices(devices: Sequence[Any]) -> str:
    """Returns in words what trains, and on how many devices.

    Example:
      >>> _devices(jax.devices("cpu")[:1]).startswith("1 CPU device (")
      True
    """
    first = devices[0]
    cpu = first.platform == "cpu"
    what = _counted(os.cpu_count() or 1, "core") if cpu else first.device_kind
    return f"{_counted(len(devices), f'{first.platform.upper()} device')} ({what})"


def _versions() -> list[str]:
    others = [f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax", "optax")]
    return [f"jaxcon {jaxcon.__version__}", *others, f"Python {platform.python_version()}"]


def with_classes(class_names: Sequence[str] | None) -> str:
    """Returns how many classes there are, in words.

    Example:
      >>> with_classes(("cat", "dog")), with_classes(None)
      ('2 classes', 'no classes')
    """
    return "no classes" if class_names is None else f"{len(class_names):,} classes"


def with_captions(dataset: PairDataset) -> str:
    """Returns in words what comes with the images of a dataset of pairs."""
    parts = (dataset.train, dataset.validation, dataset.test)
    count = sum(len(texts) for part in parts for texts in part.captions)
    known = f"; known of them: {', '.join(dataset.classes)}" if dataset.classes else ""
    return f"{count:,} captions{known}"
