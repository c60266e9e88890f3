"""How losses are compared, and how the answer follows from the comparisons.

A comparison is between runs that only differ in the loss: of one seed, or of one batch size and rate.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scipy import stats

from experiments.uncertainty_study.pieces import Protocol, Records, choose_rate, pieces
from experiments.uncertainty_study.statistics import (
    Interval,
    interval,
    measures,
    of_seeds,
    of_settings,
)


class Stability(NamedTuple):
    """How the runs of one loss compare with those of another, in the same settings.

    Attributes:
      fewer: settings in which only the other failed.
      more: settings in which only this one failed.
      p: p-value of the two-sided sign test between them.
      spikes: differences of spikes in 100 steps, where both trained.
      variation: differences of the gradient norm's variation, where both trained.
      n: number of settings compared.
    """

    fewer: int
    more: int
    p: float
    spikes: Interval | None
    variation: Interval | None
    n: int

    @property
    def answer(self) -> str:
        """One of "more stable", "less stable" and "no difference shown", by the protocol's rule."""
        told = [value for value in (self.spikes, self.variation) if value is not None]
        lower, higher = any(v.below for v in told), any(v.above for v in told)
        steadier, rougher = lower and not higher, higher and not lower
        if (self.p < 0.05 and self.fewer > self.more) or (self.fewer >= self.more and steadier):
            return "more stable"
        if (self.p < 0.05 and self.more > self.fewer) or (self.more >= self.fewer and rougher):
            return "less stable"
        return "no difference shown"


def compare_stability(records: Records, loss: str, control: str) -> Stability:
    """Returns the comparison over the settings in which both losses were run."""
    own, other = of_settings(records, loss), of_settings(records, control)
    shared = [setting for setting in own if setting in other]
    fewer = sum(other[s].failure is not None and own[s].failure is None for s in shared)
    more = sum(own[s].failure is not None and other[s].failure is None for s in shared)
    trained = [s for s in shared if own[s].failure is None and other[s].failure is None]
    p = float(stats.binomtest(fewer, fewer + more).pvalue) if fewer + more else 1.0

    def differences(name: str) -> Interval | None:
        pairs = [(getattr(own[s], name), getattr(other[s], name)) for s in trained]
        return interval([a - b for a, b in pairs if a is not None and b is not None])

    return Stability(
        fewer, more, p, differences("spikes"), differences("norm_variation"), len(shared)
    )


def compare_recall(records: Records, loss: str, control: str) -> Interval | None:
    """Returns the interval of the differences of recall@1 between runs of the same seed."""
    own, other = (
        {seed: record.scored.mean_recall() for seed, record in of_seeds(records, which).items()}
        for which in (loss, control)
    )
    return interval([own[seed] - other[seed] for seed in own if seed in other])


def space_answer(difference: Interval) -> str:
    """Returns "better", "worse" or "no difference shown" for a difference of recall.

    Example:
      >>> space_answer(Interval(0.02, 0.01, 5)), space_answer(Interval(0.02, 0.03, 5))
      ('better', 'no difference shown')
    """
    if difference.above:
        return "better"
    return "worse" if difference.below else "no difference shown"


def variance_answer(correlation: Interval) -> str:
    """Returns whether general captions get the larger deviation, by its correlation with the grade.

    Example:
      >>> variance_answer(Interval(-0.6, 0.1, 5)), variance_answer(Interval(-0.2, 0.1, 5))
      ('yes', 'weakly')
    """
    if correlation.half is None:
        return "no"
    if correlation.mean + correlation.half < -0.3:
        return "yes"
    if correlation.below:
        return "weakly"
    return "no, the opposite" if correlation.above else "no"


def overall(answers: Sequence[str], good: str, bad: str) -> str:
    """Returns "yes" if every comparison is good; otherwise "no", and whether one is bad.

    Example:
      >>> overall(["better", "worse"], "better", "worse")
      'no: worse in a comparison'
    """
    if all(answer == good for answer in answers):
        return "yes"
    return f"no: {bad} in a comparison" if bad in answers else "no: no difference shown"


def summarize(
    protocol: Protocol, records: Records, comparisons: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Returns all results as JSON values.

    Args:
      protocol: the protocol of the study.
      records: the records that are there.
      comparisons: maps each loss with deviations to its controls.
    """
    pairs = [(loss, control) for loss, controls in comparisons.items() for control in controls]
    return {
        "done": len(records),
        "planned": len(pieces(protocol)),
        "learning rates": {n: choose_rate(protocol, records, n) for n in protocol.losses},
        "seeds": {
            name: {measure: _plain(value) for measure, value in intervals(records, name).items()}
            for name in protocol.losses
        },
        "stability": {
            name: [
                {"batch size": batch, "learning rate": rate, **row.as_json()}
                for (batch, rate), row in of_settings(records, name).items()
            ]
            for name in protocol.losses
        },
        "differences of recall@1": {
            f"{loss} - {control}": _plain(compare_recall(records, loss, control))
            for loss, control in pairs
        },
        "differences of stability": {
            f"{loss} - {control}": {
                name: _plain(value)
                for name, value in compare_stability(records, loss, control)._asdict().items()
            }
            for loss, control in pairs
        },
    }


def intervals(records: Records, loss: str) -> dict[str, Interval | None]:
    """Returns the interval over the seeds of each measure of a loss, by the names of `measures`."""
    runs = [measures(record) for record in of_seeds(records, loss).values()]
    names = dict.fromkeys(itertools.chain.from_iterable(runs))
    return {name: interval([values[name] for values in runs if name in values]) for name in names}


def grade_interval(records: Records, loss: str) -> Interval | None:
    """Returns the interval of the rank correlation of a caption's deviation with its grade."""
    runs = of_seeds(records, loss).values()
    return interval([record.deviations.grade for record in runs if record.deviations])


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        half = None if value.half is None else round(value.half, 5)
        return {"mean": round(value.mean, 5), "half": half, "n": value.n}
    return value
