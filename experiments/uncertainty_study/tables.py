"""The tables of the study's page."""

import statistics
from collections.abc import Mapping, Sequence

from experiments.running import markdown
from experiments.uncertainty_study.comparisons import (
    compare_recall,
    compare_stability,
    intervals,
    space_answer,
)
from experiments.uncertainty_study.losses import make_objective
from experiments.uncertainty_study.pieces import Protocol, Records, choose_rate
from experiments.uncertainty_study.record import Record
from experiments.uncertainty_study.statistics import (
    Interval,
    failure,
    interval,
    of_seeds,
    of_settings,
)

_NONE = "–"  # noqa: RUF001
_SHARES = ("recall@1", "recall@5", "recall@10", "zero-shot mean")
_CORRELATIONS = {
    "text with grade": "caption with grade",
    "text with grade, from 2 on": "the same without grade 1",
    "image with number of objects": "image with number of objects",
    "image with size of a single object": "image with size, 1 object",
}


def cell(value: Interval | None, *, factor: float = 1.0, digits: int = 1, sign: str = "") -> str:
    """Returns a mean with half its interval, as text.

    Example:
      >>> cell(Interval(0.834, 0.021, 5), factor=100), cell(Interval(-0.5, None, 1), digits=2)
      ('83.4 ± 2.1', '-0.50')
      >>> cell(None)
      '–'
    """
    if value is None:
        return _NONE
    mean = f"{factor * value.mean:{sign}.{digits}f}"
    return mean if value.half is None else f"{mean} ± {factor * value.half:.{digits}f}"


def result_tables(
    protocol: Protocol, records: Records, comparisons: Mapping[str, Sequence[str]]
) -> list[str]:
    """Returns the tables of what was found, each under its heading."""
    by_loss = {name: intervals(records, name) for name in protocol.losses}
    texts = []
    if any(piece.part == "rates" for piece in records):
        texts += [
            "### Choice of the learning rate",
            "Recall@1 on validation images, percent, mean of both ways (a random ranking: "
            f"{_chance(records)}); in brackets how a run failed by the rule above, which a run that "
            "learned little need not. Of a rate at the edge of the grid the next one may be better.",
            _rates(protocol, records),
        ]
    if any(by_loss.values()):
        texts += [
            "### Retrieval and zero-shot accuracy",
            "Percent on test images, mean and half the 95 % interval over seeds. Recall is averaged "
            "over both ways.",
            _scores(records, by_loss),
            "Each way and each attribute:",
            _details(records, by_loss),
            "Difference of recall@1 in percentage points, runs of one seed against each other:",
            _differences(records, comparisons),
            "### Deviations, and how much of the space is used",
            "Rank correlation of the predicted log deviation; effective rank and uniformity (lower "
            "is more uniform) of the test pairs.",
            _deviations(protocol, by_loss),
            "What was learned beside the encoders, at the end:",
            _scalars(protocol, records),
        ]
    if any(piece.part == "stability" for piece in records):
        texts += [
            "### Stability",
            "Over the settings that were run; spikes and variation are means over those that "
            "trained.",
            _stability(protocol, records),
            "Against a control, in the same settings:",
            _stability_differences(records, comparisons),
        ]
    return texts


def _rates(protocol: Protocol, records: Records) -> str:
    rows = []
    for loss in protocol.losses:
        tried = {
            p.learning_rate: r for p, r in records.items() if p.part == "rates" and p.loss == loss
        }
        chosen = choose_rate(protocol, records, loss)
        texts = [_tried(tried.get(rate)) for rate in protocol.rates]
        edges = {min(protocol.rates): ", the lowest", max(protocol.rates): ", the highest"}
        told = _NONE if chosen is None else f"{chosen:g}{edges.get(chosen, '')}"
        rows.append([loss, *texts, told])
    return markdown.table(["loss", *(f"{rate:g}" for rate in protocol.rates), "chosen"], rows)


def _chance(records: Records) -> str:
    """Returns recall@1 of a random ranking, in percent."""
    chance = max(record.chance.mean_recall() for record in records.values())
    return f"{100 * chance:.1f}"


def _tried(record: Record | None) -> str:
    if record is None:
        return _NONE
    failed = failure(record)
    return f"{100 * record.scored.mean_recall():.1f}" + (f" ({failed})" if failed else "")


def _scores(records: Records, by_loss: Mapping[str, Mapping[str, Interval | None]]) -> str:
    rows = []
    for loss, values in by_loss.items():
        runs = of_seeds(records, loss).values()
        failed = sum(failure(record) is not None for record in runs)
        shares = [cell(values.get(name), factor=100) for name in _SHARES]
        rows.append([loss, str(len(runs)), str(failed), *shares])
    return markdown.table(["loss", "runs", "failed", *_SHARES], rows)


def _details(records: Records, by_loss: Mapping[str, Mapping[str, Interval | None]]) -> str:
    run = next(record for piece, record in records.items() if piece.part == "seeds")
    names = list(run.scored.at(1).as_json())
    rows = [
        [loss, *(cell(values.get(name), factor=100) for name in names)]
        for loss, values in by_loss.items()
    ]
    return markdown.table(["loss", *names], rows)


def _differences(records: Records, comparisons: Mapping[str, Sequence[str]]) -> str:
    rows = []
    for loss, control in _pairs(comparisons):
        value = compare_recall(records, loss, control)
        told = space_answer(value) if value and value.half is not None else _NONE
        rows.append([f"{loss} - {control}", cell(value, factor=100, sign="+"), told])
    return markdown.table(["losses", "recall@1", "the first is"], rows)


def _deviations(protocol: Protocol, by_loss: Mapping[str, Mapping[str, Interval | None]]) -> str:
    """Returns the table of deviations; if runs whose embeddings are not finite lack them, with n."""
    rows = []
    for loss, values in by_loss.items():
        correlations = []
        for name in _CORRELATIONS:
            value = values.get(name)
            told = f" (n = {value.n})" if value and value.n < len(protocol.seeds) else ""
            correlations.append(cell(value, digits=2, sign="+") + told)
        space = [cell(values.get("effective_rank")), cell(values.get("uniformity"), digits=2)]
        rows.append([loss, *correlations, *space])
    heading = ["loss", *_CORRELATIONS.values(), "effective rank", "uniformity"]
    return markdown.table(heading, rows)


def _scalars(protocol: Protocol, records: Records) -> str:
    rows = []
    for loss in protocol.losses:
        runs = [record.scalars for record in of_seeds(records, loss).values()]
        for name, first in make_objective(loss).scalars.items():
            values = [value for run in runs if (value := run[name]) is not None]
            rows.append([loss, name, f"{first:g}", cell(interval(values), digits=3)])
    return markdown.table(["loss", "scalar", "first value", "after the run"], rows)


def _stability(protocol: Protocol, records: Records) -> str:
    rows = []
    for loss in protocol.losses:
        settings = list(of_settings(records, loss).values())
        kinds = [row.failure for row in settings]
        trained = [row for row in settings if row.failure is None]
        failed = [str(kinds.count(kind)) for kind in ("not finite", "collapsed", "at chance")]
        rows.append(
            [
                loss,
                f"{len(settings) - len(trained)} of {len(settings)}",
                *failed,
                _mean([row.spikes for row in trained], 2),
                _mean([row.norm_variation for row in trained], 3),
            ]
        )
    heading = ["loss", "failed", "not finite", "collapsed", "at chance"]
    return markdown.table([*heading, "spikes in 100 steps", "gradient-norm variation"], rows)


def _mean(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.fmean(known):.{digits}f}" if known else _NONE


def _stability_differences(records: Records, comparisons: Mapping[str, Sequence[str]]) -> str:
    rows = []
    for loss, control in _pairs(comparisons):
        value = compare_stability(records, loss, control)
        rows.append(
            [
                f"{loss} - {control}",
                f"{value.fewer} / {value.more}",
                f"{value.p:.2g}",
                cell(value.spikes, digits=2, sign="+"),
                cell(value.variation, digits=3, sign="+"),
                value.answer,
            ]
        )
    heading = ["losses", "failed: second alone / first alone", "sign test p"]
    return markdown.table([*heading, "spikes", "variation", "the first is"], rows)


def _pairs(comparisons: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    return [(loss, control) for loss, controls in comparisons.items() for control in controls]
