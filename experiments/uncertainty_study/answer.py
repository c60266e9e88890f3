"""The answer of the study, by the rules that were fixed before it."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.uncertainty_study.comparisons import (
    compare_recall,
    compare_stability,
    grade_interval,
    overall,
    space_answer,
    variance_answer,
)
from experiments.uncertainty_study.pieces import Protocol, Records, pieces
from experiments.uncertainty_study.tables import cell


def answer_text(
    protocol: Protocol, records: Records, comparisons: Mapping[str, Sequence[str]]
) -> str:
    """Returns the answer by the protocol's rules and its first comparison, once all runs are there."""
    left = len(pieces(protocol)) - len(records)
    if left:
        return f"Not yet: {left} runs are missing, and the answer is drawn from all of them."
    loss, controls = next(iter(comparisons.items()))
    stable = {c: compare_stability(records, loss, c).answer for c in controls}
    better = {c: compare_recall(records, loss, c) for c in controls}
    space: dict[str, Any] = {c: space_answer(value) for c, value in better.items() if value}
    correlation = grade_interval(records, loss)
    if correlation is None:
        told = "**cannot be told**: no run has deviations that are finite."
    else:
        said = cell(correlation, digits=2, sign="+")
        told = f"**{variance_answer(correlation)}** (rank correlation with the grade {said})."
    sizes = "; ".join(
        f"recall@1 against {c} {cell(value, factor=100, sign='+')} points: {space[c]}"
        for c, value in better.items()
    )
    steadier = "; ".join(f"against {c}: {told}" for c, told in stable.items())
    return "\n".join(
        [
            f"1. Is training more stable? **{_said(stable, 'more stable', 'less stable')}** "
            f"({steadier}).",
            f"2. Is the joint space better? **{_said(space, 'better', 'worse')}** ({sizes}).",
            f"3. Do general captions get the larger deviation? {told}",
        ]
    )


def _said(answers: Mapping[str, str], good: str, bad: str) -> str:
    return overall(list(answers.values()), good, bad)
