"""What is said about a run's embeddings: the verdict of the collapse report, and what the scores add.

A check that only sees embeddings calls those healthy that spread and find their pairs. Whether that
helps to tell classes apart only labels can say.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcon.diagnostics import collapse_report

CHECKED = 1000  # pairs at most: similarities of all with all are computed
_FEW_LABELS = {"1 label": "one label a class", "5 labels": "five labels a class"}


def verdict(
    z1: np.ndarray,
    z2: np.ndarray,
    temperature: float,
    *,
    of: str,
    total: int,
    scores: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[str]:
    """Returns sentences: the collapse report's verdict, and where less training does better.

    Args:
      z1: embeddings of held-out pairs, `[n, dim]`.
      z2: the other embeddings of the pairs.
      temperature: temperature of the loss; what counts as a narrow cone depends on it.
      of: what the pairs are, in the plural.
      total: how many there are, of which n were drawn.
      scores: shares of test images classified correctly, by features and evaluation.
    """
    if len(z1) < 2:
        return [f"Collapse check: there are too few {of} for one."]
    which = f"all {total:,} {of}" if len(z1) == total else f"{len(z1):,} of {total:,} {of}"
    grade, colon, rest = collapse_report(z1, z2, temperature=temperature).verdict.partition(":")
    better, sentence = _better(scores or {})
    if better and grade == "healthy":
        grade = f"not collapsed, yet less useful than {better}"
    check = f"Collapse check on {which}. {grade[0].upper()}{grade[1:]}{colon}{rest}."
    return [check, sentence] if sentence else [check]


def _better(scores: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """Returns which features beat the trained encoder's with few labels, and a sentence on it.

    Example:
      >>> trained = {"1 label": (0.3, 0.02)}
      >>> scores = {"raw pixels": {"1 label": (0.35, 0.02)}, "trained encoder": trained}
      >>> print(_better(scores)[1])
      With one label a class the trained encoder reaches 30.0%, less than raw pixels (35.0%).
    """
    names, parts = [], []
    for key, said in _FEW_LABELS.items() if scores else ():
        own = scores["trained encoder"][key][0] if key in scores["trained encoder"] else 1.0
        ahead = {
            name.replace("untrained", "the untrained"): row[key][0]
            for name, row in scores.items()
            # As precise as the table, so that the sentence and the table agree.
            if key in row and round(row[key][0], 3) > round(own, 3)
        }
        if ahead:
            names += [name for name in ahead if name not in names]
            listed = " and ".join(f"{name} ({share:.1%})" for name, share in ahead.items())
            parts.append(f"with {said} the trained encoder reaches {own:.1%}, less than {listed}")
    sentence = "; ".join(parts)
    return " and ".join(names), f"{sentence[:1].upper()}{sentence[1:]}." if parts else ""
