"""What is left of a finished run: its results on the console, its page in the folder."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.running.figures import Drawing, drawn
from experiments.running.process import say
from jaxcon import report
from jaxcon.training.files import write_text
from jaxcon.training.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class Results:
    """What results.json holds.

    Attributes:
      scores: JSON values by what was evaluated, then by evaluation, named as in the table.
      notes: sentences; runs of earlier versions have none.
    """

    scores: Mapping[str, Mapping[str, Any]]
    notes: Sequence[str] = ()


Show = Callable[[Mapping[str, Mapping[str, Any]]], None]  # prints the scores


def show_if_finished(workdir: Workdir, show: Show) -> bool:
    """Prints a finished run's results by `show`; returns whether there are any, and a page."""
    if not workdir.finished or (content := workdir.read_results()) is None:
        return False
    say(f"this run is finished: {workdir.path}")
    tell(Results(content["scores"], content.get("notes", ())), show)
    say(f"\nreport: {workdir.page}")
    return True


def finish(workdir: Workdir, results: Results, show: Show) -> None:
    """Writes and prints the results: from here on no failure can lose them."""
    write_text(workdir.results, json.dumps(dataclasses.asdict(results), indent=2) + "\n")
    workdir.send()
    tell(results, show)


def tell(results: Results, show: Show) -> None:
    """Prints the table and the sentences of a run."""
    say("")
    show(results.scores)
    for note in results.notes:
        say(f"\n{note}")


def write_page(workdir: Workdir, page: report.Page, drawings: Sequence[Drawing]) -> None:
    """Draws what can be drawn, and writes the page."""
    say("\ndrawing figures")
    figures, failures = drawn(drawings)
    whole = report.Page(**{**vars(page), "figures": figures, "notes": [*page.notes, *failures]})
    report.write_page(workdir.page, whole)
    workdir.send()
    say(f"report: {workdir.page}")
