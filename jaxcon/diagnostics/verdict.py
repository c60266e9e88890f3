"""The words of a collapse report: grades of a batch, with the bounds between them.

docs/collapse.md derives the bounds.
"""

import math
from collections.abc import Callable

import numpy as np

from jaxcon.typing import Array

# Rows whose mean cosine with each other exceeds this have collapsed for every practical purpose.
_SAME_DIRECTION = 0.99
# Healthy encoders were seen to use a fifth of their directions and more; a line or a plane uses 1 or 2.
_FEW_DIRECTIONS = 0.1
# A cone that leaves less than this part of the range between chance and the best loss is a narrow one.
_LITTLE_RANGE = 0.1
# So many rows that find their pair are no luck: of k rows in an order drawn by lot, the chance is at
# most 1 / k!, whatever the rows (docs/collapse.md), and 1 / 7! is below 1 in 1,000.
_NO_LUCK = 7


def not_finite(z1: Array, z2: Array) -> str | None:
    """What to say of rows with NaN or infinity; None where there are none."""
    said = []
    for name, z in (("z1", z1), ("z2", z2)):
        rows = np.flatnonzero(~np.isfinite(np.asarray(z, np.float64)).all(axis=1))
        if len(rows):
            count = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
            said.append(f"{count} of {name} (the first is row {rows[0]})")
    if not said:
        return None
    return f"not finite: {' and '.join(said)} hold NaN or infinity, of {len(z1)} pairs"


def found_alone(similarities: np.ndarray) -> np.ndarray:
    """The rows whose pair is nearer than every other candidate: bool [n]."""
    others = np.where(np.eye(len(similarities), dtype=bool), -np.inf, similarities)
    return np.diagonal(similarities) > others.max(axis=1)


def _open_range(cosine: float, n: int, temperature: float) -> float:
    """The part of the loss's range that rows of this mean cosine leave open.

    With every pair at cosine 1 and all other candidates at c the loss is
    ``ln(1 + (n - 1) e^{-(1 - c) / T})``: chance, ln n, at c = 1, and least for a simplex, where
    ``c = -1 / (n - 1)``.
    """

    def below_chance(c: float) -> float:
        return math.log(n) - math.log1p((n - 1) * math.exp(-(1 - c) / temperature))

    return below_chance(cosine) / below_chance(-1 / (n - 1))


def graded(
    numbers: dict, cosines: dict[str, float], found: int, n: int, dim: int, temperature: float
) -> str:
    """The verdict on finite rows; ``found``: how many have their pair nearest, alone."""
    relative = numbers["relative_loss"]
    loss = f"the loss is {relative:.2f} of chance"
    if abs(relative - 1) < 5e-4:
        loss = "the loss is that of chance"
    rank, possible = numbers["effective_rank"], min(n - 1, dim)
    spread = f"over {rank:.1f} of {possible} directions"
    accuracy = f"{100 * numbers['accuracy']:.0f} % find their pair"

    def sides(keep: Callable[[float], bool]) -> str:
        return " and of ".join(name for name, cosine in cosines.items() if keep(cosine))

    if which := sides(lambda c: c > _SAME_DIRECTION):
        return f"complete collapse: all rows of {which} point the same way; {loss}"
    if numbers["relative_rank"] < _FEW_DIRECTIONS or rank < 1.5 < possible:
        return f"dimensional collapse: rows spread only {spread}; {loss}"
    if which := sides(lambda c: _open_range(c, n, temperature) < _LITTLE_RANGE):
        widest = max(cosines.values())
        return (
            f"narrow cone: rows of {which} differ, but at a mean cosine of {widest:.3f}; {accuracy}; "
            f"{loss}, and at temperature {temperature:g} can hardly fall; a lower temperature, "
            "centring, or a regularizer (uniformity, KoLeo) helps"
        )
    if n < _NO_LUCK:
        return (
            f"undecided: rows spread {spread}; {accuracy}, but of fewer than {_NO_LUCK} pairs that "
            f"may be luck; {loss}"
        )
    if found < _NO_LUCK:
        return f"unaligned: rows spread {spread}, but only {accuracy}, no more than by luck; {loss}"
    return f"healthy: rows spread {spread}; {accuracy}; {loss}"
