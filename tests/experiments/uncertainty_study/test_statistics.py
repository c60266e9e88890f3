"""What is computed from records: intervals, spikes, failures, stability, differences."""

import math

import numpy as np
import pytest

from experiments.pairs.retrieval import rank_correlation
from experiments.uncertainty_study import statistics
from experiments.uncertainty_study.comparisons import (
    Stability,
    compare_recall,
    compare_stability,
    intervals,
)
from experiments.uncertainty_study.pieces import (
    pieces,
)
from experiments.uncertainty_study.runs import gave_up, rankable
from experiments.uncertainty_study.statistics import (
    Interval,
    failure,
    interval,
    norm_variation,
)
from jaxcon.encoders.dual import Embedded
from tests.experiments.uncertainty_study.records import (
    TINY,
    change,
    everything,
    found,
    measured,
)


def test_the_interval_is_students():
    found = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    # 2.7764 is the table's value for four degrees of freedom; the deviation is the root of 2.5.
    assert found.mean == 3
    assert found.half == pytest.approx(2.7764 * math.sqrt(2.5) / math.sqrt(5), rel=1e-4)
    assert interval([7.0]) == Interval(7.0, None, 1)
    assert interval([]) is None


def test_rank_correlation_shares_ranks():
    values, groups = np.array([5.0, 1.0, 1.0, 4.0, 4.0]), np.array([1, 2, 2, 1, 3])
    # Ranks by hand: 5, 1.5, 1.5, 3.5, 3.5 and 1.5, 3.5, 3.5, 1.5, 5; both have mean 3.
    a, b = np.array([2, -1.5, -1.5, 0.5, 0.5]), np.array([-1.5, 0.5, 0.5, -1.5, 2])
    expected = (a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum())
    assert rank_correlation(values, groups) == pytest.approx(expected)
    assert rank_correlation(np.ones(3), np.arange(3)) == 0


def test_spikes_are_counted_where_they_begin():
    calm = [1.0, 1.2] * 10  # median 1.1, deviations 0.1: the threshold is 1.1 + 5 * 1.4826 * 0.1
    threshold = 1.1 + 5 * 0.14826
    below, above = threshold - 0.01, threshold + 0.01
    assert statistics.spikes([*calm, below], start=20) == 0
    assert statistics.spikes([*calm, above], start=20) == 1
    assert statistics.spikes([*calm, above, 9.0, 1.0, 1.2, 4.0], start=20) == 2
    assert statistics.spikes([*calm, above, 1.0], start=21) == 0
    assert statistics.spikes([*calm, None, None, 1.0], start=20) == 1
    assert statistics.spikes([1.0, 50.0], start=0) == 0  # nothing to compare with


def test_gradient_norms_are_compared_with_those_before():
    norms = [2.0] * 20
    found = norm_variation([*norms, 2 * math.e, 2 / math.e], start=20)
    assert found == pytest.approx(math.sqrt(2))  # of +1 and -1
    scaled = [1000 * norm for norm in (*norms, 2 * math.e, 2 / math.e)]
    assert norm_variation(scaled, start=20) == pytest.approx(found)
    assert norm_variation([*norms, 2.0, None, 0.0], start=20) is None


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, None),
        ({"skipped": 1}, "not finite"),
        ({"verdict": "not finite"}, "not finite"),
        ({"verdict": "complete collapse: all rows of z1 point the same way"}, "collapsed"),
        ({"verdict": "dimensional collapse: rows spread only over 3.0 of 7 directions"}, None),
        ({"loss": [9.0] * 36 + [1.97] * 4}, None),
        ({"loss": [1.0] * 36 + [1.99] * 4}, "at chance"),
        ({"loss": [None] * 40}, "at chance"),
        ({"loss": [10.0] + [5.0] * 39}, None),
        ({"loss": [10.0] + [9.1] * 39}, "at chance"),
        ({"loss": [10.0] + [5.0] * 39, "scores": found(0.041)}, None),
        ({"loss": [10.0] + [5.0] * 39, "scores": found(0.04)}, "at chance"),
        ({"loss": [10.0] + [1.9] * 39, "scores": found(0.01)}, None),
    ],
)
def test_how_a_run_fails(changes, kind):
    piece = pieces(TINY)[-1]
    assert failure(measured(piece, 1e-2, **changes)) == kind


def test_a_run_is_given_up_after_50_refused_updates_in_a_row():
    refused = list(range(1, 51))
    assert not gave_up(refused[:-1])
    assert gave_up(refused)
    assert not gave_up([*refused[:-1], 49])
    assert gave_up([0, 1, 1, *range(2, 52)])


@pytest.mark.parametrize(
    ("z", "log_std", "comparable"),
    [(1.0, 0.0, True), (np.nan, 0.0, False), (1e16, 0.0, False), (1.0, -41.0, False)],
)
def test_what_cannot_be_ranked_is_not(z, log_std, comparable):
    side = Embedded(np.array([[1.0, z]]), np.array([log_std]))
    assert rankable(side) == comparable


def test_stability_is_compared_in_the_same_settings():
    records = everything()
    settings = [p for p in records if p.part == "stability" and p.loss == "clip"]
    change(records, settings[0], skipped=3)
    noisy = [1 + 0.1 * (step % 2) + (step == 30) for step in range(40)]
    for piece in settings[1:]:
        change(records, piece, loss=noisy, gradient_norm=noisy)
    found = compare_stability(records, "gaussian", "clip")
    assert (found.fewer, found.more, found.p, found.n) == (1, 0, 1.0, 4)
    assert found.spikes == Interval(pytest.approx(-100 / 36), pytest.approx(0), 3)
    assert found.variation.below
    assert found.answer == "more stable"
    mirrored = compare_stability(records, "clip", "gaussian")
    assert mirrored.answer == "less stable"
    assert (mirrored.fewer, mirrored.more) == (0, 1)
    same = compare_stability(records, "gaussian", "gaussian-shared")
    assert same.answer == "no difference shown"


def test_failures_alone_decide_when_there_are_enough():
    calm = Interval(0.0, 1.0, 3)
    # Six of six have a chance of 2 / 64 under the sign test, five of five 2 / 32.
    assert Stability(6, 0, 2 / 64, calm, calm, 12).answer == "more stable"
    assert Stability(0, 6, 2 / 64, calm, calm, 12).answer == "less stable"
    assert Stability(5, 0, 2 / 32, calm, None, 12).answer == "no difference shown"
    steady = Interval(-1.0, 0.5, 3)
    assert Stability(0, 1, 1.0, steady, steady, 12).answer == "no difference shown"


def test_differences_are_between_runs_of_one_seed():
    records = everything()
    found = compare_recall(records, "gaussian", "clip")
    assert found == Interval(pytest.approx(0.1), pytest.approx(0, abs=1e-12), 3)
    means = intervals(records, "clip")
    assert means["recall@5"].mean == pytest.approx(0.51)
    assert means["recall@5"].half == pytest.approx(4.3027 * 0.01 / math.sqrt(3), rel=1e-4)
    assert "text with grade" not in means


def test_a_run_that_cannot_be_evaluated_scores_chance():
    piece = next(p for p in pieces(TINY) if p.part == "seeds")
    values = statistics.measures(measured(piece, 1e-3, scores=None))
    assert values["recall@1"] == values["zero-shot mean"] == pytest.approx(0.01)


# Losses.
