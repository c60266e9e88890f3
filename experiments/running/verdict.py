"""What is said about a run's embeddings: the verdict of the collapse report, and what the scores add.

A check that only sees embeddings calls those healthy that spread and find their pairs. Whether that
helps to tell classes apart only labels can say.
"""

from typing import NamedTuple

import numpy as np

from jaxcon.diagnostics import collapse_report

CHECKED = 1000  # pairs at most: similarities of all with all are computed


class Ahead(NamedTuple):
    """What does better than the trained encoder: its name, and the sentence on it."""

    names: str
    sentence: str


def verdict(
    z1: np.ndarray,
    z2: np.ndarray,
    temperature: float,
    *,
    of: str,
    total: int,
    ahead: Ahead | None = None,
) -> list[str]:
    """Returns sentences: the collapse report's verdict, and where less training does better.

    Args:
      z1: embeddings of held-out pairs, `[n, dim]`.
      z2: the other embeddings of the pairs.
      temperature: temperature of the loss; what counts as a narrow cone depends on it.
      of: what the pairs are, in the plural.
      total: how many there are, of which n were drawn.
      ahead: what does better according to the labels; None if nothing does.
    """
    if len(z1) < 2:
        return [f"Collapse check: there are too few {of} for one."]
    which = f"all {total:,} {of}" if len(z1) == total else f"{len(z1):,} of {total:,} {of}"
    grade, colon, rest = collapse_report(z1, z2, temperature=temperature).verdict.partition(":")
    if ahead and grade == "healthy":
        grade = f"not collapsed, yet less useful than {ahead.names}"
    check = f"Collapse check on {which}. {grade[0].upper()}{grade[1:]}{colon}{rest}."
    return [check, ahead.sentence] if ahead else [check]
