"""The statistics of the runs of the study: plain functions of numbers."""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from scipy import stats

from experiments.pairs.scores import Scores
from experiments.uncertainty_study.pieces import Records
from experiments.uncertainty_study.record import Curve, Record

WINDOW = 20  # number of preceding steps that a step is compared with
SPIKE = 5.0  # deviations above their median
LEVEL = 0.99  # share of the loss of equal embeddings
FALL = 0.9  # share of the first loss
LUCK = 4.0  # times the recall@1 of a random ranking: one hit, and three standard deviations of it


class Interval(NamedTuple):
    """A mean of n values, and half the width of its 95 % interval; None for a single value."""

    mean: float
    half: float | None
    n: int

    @property
    def above(self) -> bool:
        """Whether all of the interval lies above 0."""
        return self.half is not None and self.mean - self.half > 0

    @property
    def below(self) -> bool:
        """Whether all of the interval lies below 0."""
        return self.half is not None and self.mean + self.half < 0


def interval(values: Sequence[float]) -> Interval | None:
    """Returns mean and t interval of independent values; None if there are none.

    Example:
      >>> found = interval([1.0, 2.0, 3.0])
      >>> found.mean, round(found.half, 3)  # 4.303 / sqrt(3)
      (2.0, 2.484)
    """
    n = len(values)
    if n < 2:
        return Interval(values[0], None, 1) if values else None
    half = float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return Interval(statistics.fmean(values), half, n)


def spikes(losses: Curve, *, start: int) -> int:
    """Returns how often the loss jumps above what the preceding steps suggest.

    A step is out of line if its loss is not finite, or exceeds the median of the `WINDOW` finite
    losses before it by `SPIKE` times their median absolute deviation, scaled by 1.4826 to be a
    standard deviation for normal values. Consecutive steps out of line are one spike.

    Args:
      losses: losses, step by step, None where not finite.
      start: first step that counts.
    """
    count, before = 0, False
    for step in range(start, len(losses)):
        known = [value for value in losses[:step] if value is not None][-WINDOW:]
        value = losses[step]
        out = value is None
        if value is not None and len(known) == WINDOW:
            middle = statistics.median(known)
            spread = 1.4826 * statistics.median(abs(v - middle) for v in known)
            out = value > middle + SPIKE * spread
        count += out and not before
        before = out
    return count


def norm_variation(norms: Curve, *, start: int) -> float | None:
    """Returns the deviation of ln(norm / median of the `WINDOW` norms before it).

    The ratio has no unit, so losses of different scale can be compared, and the slow change in the
    course of a run does not count.

    Args:
      norms: norms of the gradient, step by step; those that are None or 0 are left out.
      start: first step that counts.
    """
    ratios = []
    for step in range(start, len(norms)):
        known = [value for value in norms[:step] if value][-WINDOW:]
        if (value := norms[step]) and len(known) == WINDOW:
            ratios.append(math.log(value / statistics.median(known)))
    return statistics.stdev(ratios) if len(ratios) > 1 else None


def final_loss(record: Record) -> float:
    """Returns the mean loss of the last tenth of the steps, as a share of chance."""
    losses = [value for value in record.loss if value is not None]
    last = losses[-max(1, len(losses) // 10) :]
    return statistics.fmean(last) / record.chance_loss if last else math.inf


def failure(record: Record) -> str | None:
    """Returns how a run failed, None if it did not.

    The answer is the first of these that applies:

    "not finite": an update had to be refused, or the embeddings cannot be compared;
    "collapsed": all images or all texts point the same way;
    "at chance": the loss ends at `LEVEL` of that of equal embeddings, or above; and it has not fallen
    to `FALL` of the first loss, or pairs are found by luck: recall@1 is at most `LUCK` times that of a
    random ranking. Sigmoid losses begin far above chance: if they are on their way down and find
    pairs, they learn slowly, but do not fail.
    """
    if record.skipped or record.verdict == "not finite":
        return "not finite"
    if record.verdict.startswith("complete collapse"):
        return "collapsed"
    level = final_loss(record)
    first = next((value for value in record.loss if value is not None), 0.0)
    stuck = level * record.chance_loss >= FALL * first
    lost = stuck or record.scored.mean_recall() <= LUCK * record.chance.mean_recall()
    return "at chance" if level >= LEVEL and lost else None


def zero_shot_mean(record: Record) -> float:
    """Returns the mean of the zero-shot accuracies of the attributes."""
    return statistics.fmean(record.scored.zero_shot.values())


def measures(record: Record) -> dict[str, float]:
    """Returns all measures of a run of the part "seeds", by their names in results.json and tables."""
    scored = record.scored
    values = {f"recall@{k}": scored.mean_recall(k) for k in (1, 5, 10)}
    values |= Scores(scored.image_to_text, scored.text_to_image).as_json()
    values |= {"zero-shot mean": zero_shot_mean(record)}
    values |= Scores({}, {}, scored.zero_shot).as_json()
    values |= {"effective_rank": record.effective_rank, "uniformity": record.uniformity}
    return values | (record.deviations.correlations() if record.deviations else {})


def of_seeds(records: Records, loss: str) -> dict[int, Record]:
    """Returns the runs of a loss that are compared, by seed, as far as they are there."""
    return {
        piece.seed: record
        for piece, record in records.items()
        if piece.part == "seeds" and piece.loss == loss
    }


@dataclasses.dataclass(frozen=True)
class Steadiness:
    """What is compared between runs of the part "stability".

    Attributes:
      failure: how the run failed, by `failure`.
      spikes: number of spikes in 100 steps.
      norm_variation: the value of `norm_variation`.
      final_loss: loss at the end, as a share of chance; None if it is not finite.
    """

    failure: str | None
    spikes: float
    norm_variation: float | None
    final_loss: float | None

    def as_json(self) -> dict[str, Any]:
        """Returns the values by their names in results.json."""
        return {name.replace("_", " "): value for name, value in vars(self).items()}


def stability_of(record: Record) -> Steadiness:
    """Returns how steady a run was."""
    start = record.warmup
    counted = max(1, len(record.loss) - start)
    level = final_loss(record)
    return Steadiness(
        failure=failure(record),
        spikes=100 * spikes(record.loss, start=start) / counted,
        norm_variation=norm_variation(record.gradient_norm, start=start),
        final_loss=level if math.isfinite(level) else None,
    )


def of_settings(records: Records, loss: str) -> dict[tuple[int, float], Steadiness]:
    """Returns the stability of a loss by batch size and learning rate."""
    return {
        (piece.batch_size, piece.learning_rate or 0.0): stability_of(record)
        for piece, record in records.items()
        if piece.part == "stability" and piece.loss == loss
    }
