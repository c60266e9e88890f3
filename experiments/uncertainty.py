"""Does a learned variance of each sample help CLIP? A study in many short runs.

    python -m experiments.uncertainty --dry-run
    python -m experiments.uncertainty

Runs what is not done yet, then writes results.json, figures and the page, which begins with the
protocol, from everything there is. It may be stopped at any time, and continues where it stopped. On
several CPU cores, start it once per core, and they share the work:

    taskset -c 0 python -m experiments.uncertainty & taskset -c 1 python -m experiments.uncertainty

Nothing that decides the answer was chosen after a result was known: the numbers and rules are in
`experiments.uncertainty_study.protocol` and `comparisons`.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from experiments.running.ends import usage_errors
from experiments.running.options import Machine, OptionalFloat, OptionalPath, check_range, parse
from experiments.running.process import quiet_libraries, say, select_devices
from experiments.uncertainty_study.comparisons import summarize
from experiments.uncertainty_study.figures import draw_all
from experiments.uncertainty_study.page import write
from experiments.uncertainty_study.pieces import (
    Protocol,
    Records,
    estimate,
    load,
    overview,
    pieces,
    select,
    work,
)
from experiments.uncertainty_study.protocol import COMPARISONS, LIMITS, SIZES, protocol_text
from experiments.uncertainty_study.runs import Laboratory
from jaxcon.data.captions import load_pairs
from jaxcon.training.files import write_text
from jaxcon.training.workdir import check_writable


@dataclasses.dataclass(frozen=True)
class Uncertainty:
    """Run the study of losses with a learned variance, in pieces that resume, and write its page."""

    size: Literal["small", "large"] = "small"
    """small is for two CPU cores, large for an accelerator; each has its own files."""
    dry_run: bool = False
    """List the pieces that are left and how long they will take; run nothing."""
    only: tuple[str, ...] = ()
    """Run only the pieces with these names; * and ? stand for what varies, as in rates-clip-*."""
    budget_minutes: OptionalFloat = None
    """Begin no piece that would probably end later; 0 only writes the page."""
    output: Path = Path("docs")
    """Folder of the page; the files of the runs and the figures go to a folder next to it."""
    data_dir: OptionalPath = None
    """Where scenes are prepared. Default: the user's cache folder."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """auto takes the best there is; with the others, it is that one or an error."""


def write_results(output: Path, name: str, protocol: Protocol, records: Records) -> None:
    """Writes results.json, the figures and the page, from the protocol and the records."""
    folder = output / name
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarize(protocol, records, COMPARISONS)
    write_text(folder / "results.json", json.dumps(summary, indent=1) + "\n")
    discussion = folder / "discussion.md"
    page = write(
        protocol,
        records,
        before=protocol_text(protocol),
        after=LIMITS,
        comparisons=COMPARISONS,
        figures=draw_all(protocol, records, folder),
        folder=name,
        discussion=discussion.read_text(encoding="utf-8") if discussion.exists() else "",
    )
    write_text(output / f"{name}.md", page)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the study of a command line."""
    quiet_libraries()
    config = parse(Uncertainty, program="uncertainty", arguments=arguments)
    protocol = SIZES[config.size]
    name = "uncertainty" if config.size == "small" else f"uncertainty-{config.size}"
    folder = config.output / name / "pieces"
    with usage_errors():
        check_range(config, "budget_minutes", low=0, open_low=False)
        if not config.dry_run:
            check_writable(config.output, option="--output")
        wanted = select(pieces(protocol), config.only)
        records = load(folder, protocol)
    say(overview(wanted, records, protocol))
    left = [piece for piece in wanted if piece not in records]
    if config.dry_run:
        for piece in left:
            say(f"{piece.name}  {estimate(piece, records, protocol):.0f} s")
        return
    if left and config.budget_minutes != 0:
        budget = None if config.budget_minutes is None else 60 * config.budget_minutes
        with usage_errors():
            machine = Machine(accelerator=config.accelerator)
            devices = select_devices(machine)
            say("loading scenes; the first time they are drawn, which takes half a minute")
            dataset = load_pairs("scenes", data_dir=config.data_dir)
        work(left, folder, protocol, Laboratory(dataset, devices), budget=budget)
        records = load(folder, protocol)
    write_results(config.output, name, protocol, records)
    say(f"page: {config.output / name}.md ({len(records)} of {len(pieces(protocol))} runs)")


if __name__ == "__main__":
    main()
