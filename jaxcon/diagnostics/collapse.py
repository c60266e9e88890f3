"""The collapse report: the loss compared with chance, and a verdict with derived thresholds.

docs/collapse.md derives them, and says what each verdict means and what helps.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxcon import losses
from jaxcon.diagnostics.measures import (
    chance_loss,
    contrastive_accuracy,
    count_not_finite,
    effective_rank,
    not_finite,
    paired_rows,
)
from jaxcon.similarity import cosine_similarity, l2_normalize
from jaxcon.typing import Array, ArrayLike

# A loss that can leave chance by no more than this tells nothing: the report prints four decimals.
_NOTHING = 1e-4
# What is less than a tenth of the possible is few: of the fall that the loss can have at its
# temperature, of the pairs.
_FEW = 0.1
# Of directions: encoders that find nearly all test pairs were seen to use 9 %, of 128. A line or a
# plane with a little noise uses up to 3; of fewer than 30 possible that is a tenth.
_FEW_DIRECTIONS, _PLANE = 0.05, 3.0
# A row in a plane uses 2 directions, on a line 1; in between lies the line.
_LINE = 1.5
# Rows of fewer numbers (rows times features) lie along a line by chance, 3 x 2 in 58 of 100 cases.
_ENOUGH_NUMBERS = 20
# Of unrelated rows k or more find their pair in at most 1 of k! batches, whatever the number of rows:
# 7 in 1 of 5,040. With 4 it is 1 of 24, which is no surprise.
_PROOF, _SURPRISE = 7, 4


class CollapseReport(NamedTuple):
    """What `collapse_report` found.

    Attributes:
      loss: `clip_loss` at the given temperature, and
      chance: `ln n`, the loss of a collapsed model.
      relative_loss: loss / chance; 1 is chance.
      accuracy: share of rows whose pair is the nearest candidate; 1 / n is chance.
      positive_similarity: mean cosine of the pairs.
      negative_similarity: mean cosine of all other pairs, and
      negative_spread: its standard deviation.
      alignment, uniformity: of Wang & Isola, lower is better; uniformity averaged over both views.
      effective_rank: that of the view with the smaller one (see `effective_rank`), and
      relative_rank: the same divided by min(n - 1, dim).
      feature_std: `[dim]`, standard deviation of each feature of the normalized rows, averaged over
        both views; about 1 / sqrt(dim) when the directions are evenly used.
      verdict: the result in words; it begins with "not finite", "complete collapse", "narrow cone",
        "dimensional collapse", "unaligned", "undecided" or "healthy".

    All numbers except chance are NaN if the verdict is "not finite".
    """

    loss: float
    chance: float
    relative_loss: float
    accuracy: float
    positive_similarity: float
    negative_similarity: float
    negative_spread: float
    alignment: float
    uniformity: float
    effective_rank: float
    relative_rank: float
    feature_std: np.ndarray
    verdict: str

    def __str__(self) -> str:
        """Formats the numbers as a table, with the verdict first."""
        numbers = {k: v for k, v in self._asdict().items() if k not in ("feature_std", "verdict")}
        std = self.feature_std
        numbers["feature_std"] = float(std.mean())
        lines = [f"{name.replace('_', ' '):20} {value:10.4f}" for name, value in numbers.items()]
        return "\n".join([self.verdict, *lines])


def collapse_report(z1: ArrayLike, z2: ArrayLike, *, temperature: float) -> CollapseReport:
    """Compares the loss with chance and says whether, and how, the embeddings have collapsed.

    - not finite: NaN or infinity; says how many rows, and which is the first.
    - complete collapse: all rows point the same way, so nearly that the loss could not move from chance
      by more than 1 in 10,000 however well the pairs matched.
    - narrow cone: different rows are so similar that the loss can fall by less than a tenth of what it
      could at this temperature. The little that differs may still be enough to find the pairs.
    - dimensional collapse: rows differ, but along fewer than a twentieth of the directions they could
      use, in little more than a plane, or along a single line.
    - unaligned: rows spread, but no more of them find their pair than luck explains; or fewer than a
      tenth do; or fewer than half, with a loss no lower than that of a collapsed model.
    - undecided: there are too few pairs, or too few find each other, to rule out luck.
    - healthy: rows spread, and a tenth of them, at least 7, find their pair. Of unrelated rows
      7 or more do so in at most 1 of 7! = 5,040 batches, of any size and dimension.

    Args:
      z1, z2: `[n, *features]`, paired embeddings of a batch, n >= 2, any scale; normalized here.
        Arrays on an Explicit mesh are gathered.
      temperature: that of the training loss; `loss` and the bound of a narrow cone depend on it.

    Returns:
      A `CollapseReport`; printing it shows a table.

    Raises:
      ValueError: if there are fewer than two pairs, the temperature is not positive, the arguments
        have another shape or dtype, or this runs under `jit`.

    Example:
      >>> import jax
      >>> z = jax.random.normal(jax.random.key(0), (32, 16))
      >>> print(collapse_report(z, z, temperature=0.1).verdict)
      healthy: rows spread over 14.8 of 16 directions; 100 % find their pair; the loss is 0.01 of chance
    """
    if any(isinstance(value, Tracer) for value in (z1, z2, temperature)):
        raise ValueError("collapse_report needs concrete values: call it outside of jax.jit")
    z1, z2 = paired_rows(z1, z2)
    n, dim = z1.shape
    if n < 2:
        raise ValueError(f"collapse_report compares rows: expected at least 2 pairs, got {n}")
    temperature = _checked(temperature, z1.dtype)
    bad = count_not_finite(z1=z1, z2=z2)
    if bad:
        return _no_numbers(n, dim, not_finite(bad, n))
    measured = jax.device_get(_measure(z1, z2, temperature))
    similarities = np.asarray(measured.similarities, np.float64)
    negatives = similarities[~np.eye(n, dtype=bool)]
    rank = min(effective_rank(z) for z in measured.directions)
    numbers = {
        "loss": float(measured.loss),
        "chance": chance_loss(n),
        "relative_loss": float(measured.loss) / chance_loss(n),
        "accuracy": float(measured.accuracy),
        "positive_similarity": float(np.diagonal(similarities).mean()),
        "negative_similarity": float(negatives.mean()),
        "negative_spread": float(negatives.std()),
        "alignment": float(measured.alignment),
        "uniformity": float(measured.uniformity),
        "effective_rank": rank,
        "relative_rank": rank / min(n - 1, dim),
        "feature_std": measured.feature_std,
    }
    openings = {k: _opening(u) for k, u in zip(("z1", "z2"), measured.directions, strict=True)}
    return CollapseReport(**numbers, verdict=_verdict(numbers, openings, temperature, n, dim))


def _checked(temperature: Any, dtype: Any) -> float:
    value = np.asarray(temperature, np.float64)
    # In the dtype of the loss: 1e-50 is 0 in float32.
    if value.size != 1 or not np.finfo(dtype).tiny <= value.item() < math.inf:
        raise ValueError(f"temperature must be a positive number, got {temperature}")
    return value.item()


def _no_numbers(n: int, dim: int, verdict: str) -> CollapseReport:
    numbers = dict.fromkeys(CollapseReport._fields, math.nan)
    nowhere = {"feature_std": np.full(dim, np.nan), "verdict": verdict}
    return CollapseReport(**numbers | {"chance": chance_loss(n)} | nowhere)  # pyright: ignore


class _Measured(NamedTuple):
    """What a report needs of the rows."""

    loss: Array
    accuracy: Array
    alignment: Array
    uniformity: Array
    similarities: Array
    feature_std: Array
    directions: tuple[Array, Array]


@jax.jit
def _measure(z1: Array, z2: Array, temperature: float) -> _Measured:
    u1, u2 = l2_normalize(z1), l2_normalize(z2)
    return _Measured(
        loss=losses.clip_loss(z1, z2, temperature=temperature),
        accuracy=contrastive_accuracy(z1, z2),
        alignment=losses.alignment_loss(z1, z2),
        uniformity=(losses.uniformity_loss(z1) + losses.uniformity_loss(z2)) / 2,
        similarities=cosine_similarity(z1, z2),
        feature_std=(jnp.std(u1, axis=0) + jnp.std(u2, axis=0)) / 2,
        directions=(u1, u2),
    )


def _opening(directions: np.ndarray) -> float:
    """Computes 1 minus the mean cosine of different rows, without cancellation."""
    u = np.asarray(directions, np.float64)
    n = len(u)
    return float(n / (n - 1) * np.mean(np.sum((u - u.mean(axis=0)) ** 2, axis=1)))


def _lowest(gap: float, temperature: float, n: int) -> float:
    """Computes the lowest `clip_loss` of n pairs whose mean cosine exceeds the others' by `gap`.

    It is `ln(1 + (n - 1) e^(-gap / temperature))`. The gap is `n / (n - 1)` times the mean inner
    product of the centred pairs, hence at most `sqrt(a b)`, with a and b the `_opening` of the sides.
    """
    return math.log1p((n - 1) * math.exp(-gap / temperature))


def _verdict(
    numbers: dict[str, Any], openings: dict[str, float], temperature: float, n: int, dim: int
) -> str:
    chance, relative = numbers["chance"], numbers["relative_loss"]
    loss = f"the loss is {relative:.2f} of chance"
    if abs(relative - 1) < 5e-4:  # rounding of the loss, at low temperatures, can reach 1e-4
        loss = "the loss is that of chance"

    def fall(gap: float) -> float:
        return chance - _lowest(gap, temperature, n)

    # Of both sides; of a single one it is a fall that the other could only make smaller.
    gap = math.sqrt(math.prod(openings.values()))
    if fall(gap) < _NOTHING * chance:
        which = " and of ".join(k for k, v in openings.items() if fall(v) < _NOTHING * chance)
        return f"complete collapse: all rows of {which} point the same way; {loss}"
    found, verdict = _found(numbers["accuracy"], n)
    most = fall(n / (n - 1))  # of a regular simplex
    if fall(gap) < _FEW * most:
        narrow = {k: v for k, v in openings.items() if fall(v) < _FEW * most}
        best = _lowest(gap, temperature, n) / chance
        return (
            f"narrow cone: {_mean_cosines(narrow)}; {loss}, and pairs that match perfectly could "
            f"bring it to no less than {best:.3f}; {found}; a lower temperature, centred embeddings "
            "or a regularizer opens it"
        )
    rank, possible = numbers["effective_rank"], min(n - 1, dim)
    spread = f"over {rank:.1f} of {possible} directions"
    on_a_line = rank < _LINE < possible and n * dim >= _ENOUGH_NUMBERS
    few = max(_FEW_DIRECTIONS * possible, min(_PLANE, _FEW * possible))
    if rank < few or on_a_line:
        return f"dimensional collapse: rows spread only {spread}; {loss}"
    accuracy = numbers["accuracy"]
    # 0.995: what is printed as "1.00 of chance".
    if verdict == "healthy" and (accuracy < _FEW or (accuracy < 0.5 and relative >= 0.995)):
        return f"unaligned: rows spread {spread}, but only {found}, if more than by luck; {loss}"
    return f"{verdict}: rows spread {spread}; {found}; {loss}"


def _found(accuracy: float, n: int) -> tuple[str, str]:
    """Says how many rows find their pair, and returns the verdict that follows from it.

    If the pairs are unrelated, every matching of the rows is equally likely. A given set of k rows
    then finds its pairs with probability at most (n - k)! / n!, and there are n! / (k! (n - k)!)
    such sets: the expected number of sets of k rows that do is at most 1 / k!, and so is the chance
    of any. Rows that tie count in part; since the number of sets is convex in the number of rows,
    the bound holds.
    """
    hits = round(accuracy * n, 3)  # accuracy is float32
    share = f"{100 * hits / n:.0f} % find their pair"
    if n < _PROOF:
        return f"{share}, but {n} pairs are too few to tell that from luck", "undecided"
    if hits >= _PROOF:
        return share, "healthy"
    if hits >= _SURPRISE:
        odds = math.factorial(int(hits))
        return f"{share}, which luck alone does in up to 1 of {odds} batches", "undecided"
    return f"but only {share}, no more than by luck", "unaligned"


def _mean_cosines(openings: dict[str, float]) -> str:
    """Returns the mean cosines in words, with enough digits to set them apart from 1.

    Example:
      >>> print(_mean_cosines({"z1": 0.0124, "z2": 0.0123}))
      different rows of z1 and of z2 have a mean cosine of 0.988
      >>> print(_mean_cosines({"z1": 0.01, "z2": 0.00004}))
      different rows have a mean cosine of 0.990 in z1 and 0.99996 in z2
    """
    cosines = {k: f"{1 - v:.{max(3, -math.floor(math.log10(v)))}f}" for k, v in openings.items()}
    if len(set(cosines.values())) == 1:
        which = " and of ".join(cosines)
        return f"different rows of {which} have a mean cosine of {next(iter(cosines.values()))}"
    return "different rows have a mean cosine of " + " and ".join(
        f"{cosine} in {name}" for name, cosine in cosines.items()
    )
