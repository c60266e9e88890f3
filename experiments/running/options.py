"""Options that all experiments share, and how a command line becomes a checked configuration.

Each experiment nests these groups in its own dataclass; tyro turns them into flags and `--help`. None
stands for the value in the dataset's recipe and is filled in before anything else happens.
"""

import contextlib
import dataclasses
import functools
import io
import math
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from experiments.running.optimizers import OPTIMIZERS, Optimizer
from experiments.running.precision import PRECISIONS, LossPrecision
from jaxcon.data.bad_images import BadImages
from jaxcon.data.messages import printable
from jaxcon.stores import address, shown

Config = TypeVar("Config")


def _path(typed: Sequence[str]) -> Path:
    """Returns the path that was typed; an empty one is refused, as the current folder is "."."""
    if not typed[0].strip():
        raise ValueError("expected a path, got none (a shell variable that is empty?)")
    address(typed[0])  # raises for one of another kind
    return Path(typed[0])


# Optional flags, and what `--help` says about leaving them out.
of_recipe = functools.partial(tyro.conf.arg, help_behavior_hint="(default: depends on the dataset)")
_unset = functools.partial(tyro.conf.arg, help_behavior_hint="(default: none)")
# The constructor keeps "None" from being a value that can be typed.
IntOfRecipe = Annotated[int | None, of_recipe(metavar="INT", constructor=int)]
FloatOfRecipe = Annotated[float | None, of_recipe(metavar="FLOAT", constructor=float)]
OptionalInt = Annotated[
    int | None, tyro.conf.arg(metavar="INT", constructor=int, help_behavior_hint="")
]
FloatOfLoss = Annotated[
    float | None, tyro.conf.arg(metavar="FLOAT", constructor=float, help_behavior_hint="")
]
OptionalFloat = Annotated[float | None, _unset(metavar="FLOAT", constructor=float)]
OptionalPath = Annotated[
    Path | None,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=_path,
        is_instance=lambda value: value is None or isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    ),
    tyro.conf.arg(help_behavior_hint=""),
]
OptionalName = Annotated[
    str | None, tyro.conf.arg(metavar="NAME", constructor=str, help_behavior_hint="")
]
OptimizerOfRecipe = Annotated[
    Optimizer | None,
    of_recipe(  # pyright: ignore[reportCallIssue]
        metavar=f"{{{','.join(OPTIMIZERS)}}}",
        constructor=Optimizer,
    ),
]
PrecisionOfLoss = Annotated[
    LossPrecision | None,
    tyro.conf.arg(  # pyright: ignore[reportCallIssue]
        metavar=f"{{{','.join(PRECISIONS)}}}",
        constructor=LossPrecision,
        help_behavior_hint="",
    ),
]
ExchangeOfLoss = Annotated[
    Literal["gather", "ring"] | None,
    tyro.conf.arg(  # pyright: ignore[reportCallIssue]
        metavar="{gather,ring}",
        constructor=Literal["gather", "ring"],
        help_behavior_hint="",
    ),
]


@dataclasses.dataclass(frozen=True)
class Training:
    """How long to train, in what steps, with which random numbers."""

    seed: int = 0
    """Decides the initial weights, the order of the data and the views."""
    epochs: IntOfRecipe = None
    """Passes over the training images."""
    batch_size: IntOfRecipe = None
    """Images per step, over all devices together."""
    optimizer: OptimizerOfRecipe = None
    """Update rule."""
    learning_rate: FloatOfRecipe = None
    """Peak rate, reached after the warm-up; it then falls to 0 along a cosine."""
    weight_decay: FloatOfRecipe = None
    """Applied to kernels; biases and norms are left alone."""
    warmup_epochs: FloatOfRecipe = None
    """Epochs in which the learning rate rises."""
    clip_norm: OptionalFloat = None
    """Gradients with a larger norm are scaled down to this one."""
    ema: OptionalFloat = None
    """Decay of a moving average of the weights, which is then evaluated instead of them."""
    precision: Literal["f32", "bf16"] = "f32"
    """Precision of the encoder's computation; parameters, and the sums of the loss, stay float32."""
    start_from: OptionalPath = None
    """Folder of another run, to start from its weights instead of random ones. Default: none."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where it runs, and in how much memory; a run can be resumed with other values."""

    workdir: OptionalPath = None
    """Folder of the run, also gs://BUCKET/FOLDER or s3://BUCKET/FOLDER; the same command resumes there.
    Default: runs/EXPERIMENT-DATASET."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """auto takes the best there is; the others mean that one or an error."""
    num_devices: OptionalInt = None
    """Devices that share the batch; a CPU is split into that many. Default: all; on CPU, 1."""
    data_workers: OptionalInt = None
    """Processes that read and crop photographs; 0: threads of the main one. Default: a core each, but
    for one."""
    bad_images: BadImages = "error"
    """What becomes of an image that cannot be read: the run saves its state and ends, or another one
    takes its place, and the run's folder lists it; more than 1 % of such images are an error."""
    checkpoint_every: OptionalInt = None
    """Steps between checkpoints. Default: a twentieth of the run."""
    evaluate_every: OptionalFloat = None
    """Epochs between scores while it trains (kNN of features, or recall of captions; how embeddings
    spread), into metrics.jsonl, TensorBoard's events and curves on the page."""
    exchange: ExchangeOfLoss = None
    """How devices compare their embeddings with all others: gather collects them, in a ring they
    travel and a device holds those of two at a time. Default: a ring from 4,096 rows a device on."""
    block_size: OptionalInt = None
    """Compares embeddings in tiles of that edge, in place of all pairs at once. Default: by their
    number, and by what is fast on the platform."""
    remat: tyro.conf.FlagCreatePairsOff[bool] = False
    """Computes the activations of the encoder again in the backward pass instead of keeping them,
    for a third more computation. Saves half of the memory or more on GPUs; on CPUs nothing."""
    chunk_size: OptionalInt = None
    """Images of a device that the encoder embeds at a time; the loss is still that of the whole
    batch, with exact gradients. For encoders without batch norm: the vits. Default: all."""
    shard_state: tyro.conf.FlagCreatePairsOff[bool] = False
    """Divides weights, optimizer state and average among the devices, where each has a copy without;
    in a step, each gathers the weights. One device has nothing to divide."""
    plan: OptionalName = None
    """Trains nothing and reads no data: compiles the step for machines that are not here, such as
    v5e:4x4, v5p:8x16x16, v6e:2x4, h100:8 or h100:2x8 (hosts x GPUs), and tells whether it fits, what
    it takes and sends. Where it does not fit, tries the flags above."""
    plan_json: OptionalPath = None
    """File for the numbers of --plan."""
    plan_examples: OptionalInt = None
    """Training images that --plan reckons with. Default: those of the dataset if jaxcon has it, else
    1,281,167, as in ImageNet-1k, or 10,000,000 with captions."""


def parse(config: type[Config], *, program: str | None, arguments: Sequence[str] | None) -> Config:
    """Returns the configuration of a command line; `--help` and unknown flags end the process.

    Args:
      config: the options.
      program: a module of `experiments`; None: the file that runs.
      arguments: arguments of the command line; None: those of the process.
    """
    command = f"python {sys.argv[0]}" if program is None else f"python -m experiments.{program}"
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(
                config,
                prog=command,
                args=arguments,
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as ended:
        if ended.code:
            print(f"error: {one_line(box.getvalue())}", file=sys.stderr)
        raise


def one_line(box: str) -> str:
    r"""Returns in one line what tyro draws in a box: its first part, and the flags it proposes.

    Example:
      >>> box = ["╭─ Unrecognized options ────────────╮", "│ Unrecognized options: --epoch=1   │"]
      >>> box += ["│ ───────────────────────────────── │", "│ Perhaps you meant:                │"]
      >>> box += ["│     --epochs INT                  │", "╰───────────────────────────────────╯"]
      >>> print(one_line("\n".join(box)))
      Unrecognized options: --epoch=1; did you mean --epochs? (--help lists all options)
    """
    lines = [line.strip("│╭╮╰╯ ") for line in box.strip().splitlines()[1:]]
    # A rule ends the first part; where the terminal is ASCII, another one underlines the title.
    rules = [i for i, line in enumerate(lines) if not line.strip("─-")]
    start, end = (1, rules[1]) if rules[0] == 0 else (0, rules[0])
    said = " ".join(" ".join(lines[start:end]).split())
    typed = re.findall(r"--[\w-]+", said)
    near = [line.split()[0] for line in lines[end:] if line.startswith("--") and " " in line]
    proposal = " or ".join(name for name in near if name not in typed)
    hint = f"; did you mean {proposal}?" if proposal else ""
    return f"{said}{hint} (--help lists all options)"


def fill(group: Config, **defaults: Any) -> Config:
    """Returns the group with its None values replaced by the recipe's.

    Example:
      >>> fill(Training(epochs=3), epochs=100, batch_size=256).epochs
      3
    """
    missing = {name: value for name, value in defaults.items() if getattr(group, name) is None}
    return dataclasses.replace(group, **missing)  # pyright: ignore[reportArgumentType]


def flag(name: str) -> str:
    """Returns the flag of a field.

    Example:
      >>> flag("batch_size")
      '--batch-size'
    """
    return "--" + name.replace("_", "-")


def check_range(
    group: Any, *names: str, low: float, high: float = math.inf, open_low: bool = True
) -> None:
    """Raises a ValueError that names the flag of a number out of its range; None passes.

    Example:
      >>> check_range(Training(ema=1.5), "ema", low=0, high=1)
      Traceback (most recent call last):
      ValueError: --ema=1.5: expected a number above 0 and below 1
    """
    for name in names:
        value = getattr(group, name)
        if value is None:
            continue
        above = value > low if open_low else value >= low
        if not (math.isfinite(value) and above and value < high):
            lower = f"above {low}" if open_low else f"of at least {low}"
            upper = "" if high == math.inf else f" and below {high}"
            raise ValueError(f"{flag(name)}={value}: expected a number {lower}{upper}")


def check_taken(group: Any, takes: Iterable[str]) -> None:
    """Raises a ValueError for a value that the loss of the group, its field `loss`, does not take.

    Args:
      group: the options of a loss; those without a value are None.
      takes: names of the options that the loss has a use for.
    """
    for name, value in dataclasses.asdict(group).items():
        if value is not None and name not in ("loss", *takes):
            raise ValueError(f"{flag(name)}={value}: --loss={group.loss} has none; leave it out")


def check_training(training: Training, machine: Machine) -> None:
    """Raises a ValueError for the first option that is out of its range."""
    check_range(training, "seed", low=0, high=2**31, open_low=False)
    check_range(training, "epochs", "batch_size", "learning_rate", "clip_norm", low=0)
    check_range(training, "weight_decay", "warmup_epochs", low=0, open_low=False)
    check_range(training, "ema", low=0, high=1)
    check_range(machine, "num_devices", "checkpoint_every", "block_size", "chunk_size", low=0)
    check_range(machine, "data_workers", low=0, open_low=False)
    check_range(machine, "plan_examples", "evaluate_every", low=0)
    if machine.plan is not None and machine.num_devices is not None:
        raise ValueError(
            f"--num-devices={machine.num_devices}: --plan={machine.plan} says how many; leave it out"
        )
    for name in ("plan_json", "plan_examples"):
        if machine.plan is None and (value := getattr(machine, name)) is not None:
            raise ValueError(
                f"{flag(name)}={value}: only --plan has a use for it; give that as well"
            )


def flat(*groups: Any) -> dict[str, Any]:
    """Returns the fields of several groups as one dictionary of JSON values, as files can hold them.

    Example:
      >>> flat(Machine(workdir=Path("runs/a")))["workdir"]
      'runs/a'
    """
    fields = {k: v for group in groups for k, v in dataclasses.asdict(group).items()}
    texts = {k: shown(v) if isinstance(v, Path) else v for k, v in fields.items()}
    return {k: printable(v) if isinstance(v, str) else v for k, v in texts.items()}
