"""What is said of a run's embeddings: the grade of the collapse report, and what the scores add.

A check that sees embeddings alone calls those healthy that spread and find their pairs. Whether that
is of use for telling classes apart only labels can say.
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
    """Return sentences: the collapse report's verdict, and where less than training does better.

    Args:
      z1: embeddings of held-out pairs, `[n, dim]`.
      z2: the others of the pairs.
      temperature: of the loss; what counts as a narrow cone depends on it.
      of: what the pairs are, in the plural.
      total: how many of them there are, of which n were drawn.
      ahead: what the labels say: what does better; None where nothing does.
    """
    if len(z1) < 2:
        return [f"Collapse check: there are too few {of} for one."]
    which = f"all {total:,} {of}" if len(z1) == total else f"{len(z1):,} of {total:,} {of}"
    grade, colon, rest = collapse_report(z1, z2, temperature=temperature).verdict.partition(":")
    if ahead and grade == "healthy":
        grade = f"not collapsed, yet of less use than {ahead.names}"
    check = f"Collapse check on {which}. {grade[0].upper()}{grade[1:]}{colon}{rest}."
    return [check, ahead.sentence] if ahead else [check]
