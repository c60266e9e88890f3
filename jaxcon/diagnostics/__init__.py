"""Is the encoder learning, or has it collapsed? What the loss alone does not tell.

A loss has no scale until it is set against chance: a model that cannot tell K candidates apart scores
ln K. Nor does a loss below chance mean that all is well: embeddings may use few of their dimensions.

>>> import jax.numpy as jnp
>>> from jaxcon import diagnostics
>>> same = jnp.ones((7, 16))
>>> print(diagnostics.collapse_report(same, same, temperature=1.0).verdict)
complete collapse: all rows of z1 and of z2 point the same way; the loss is that of chance
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcon import losses
from jaxcon.collectives import explicit_mesh, replicate_on
from jaxcon.diagnostics.verdict import found_alone, graded, not_finite
from jaxcon.similarity import cosine_similarity, l2_normalize
from jaxcon.typing import Array, ArrayLike


class CollapseReport(NamedTuple):
    """What :func:`collapse_report` found.

    Attributes:
      loss: ``clip_loss`` at the given temperature, and chance: ``ln n``, what a collapsed model scores.
      relative_loss: loss / chance; 1 is chance.
      accuracy: share of rows whose pair is the nearest candidate; 1 / n is chance.
      positive_similarity: mean cosine of the pairs.
      negative_similarity: mean cosine of the other pairs, and negative_spread its standard deviation.
      alignment, uniformity: of Wang & Isola, lower is better; uniformity averaged over both views.
      effective_rank: the smaller of the views' (see :func:`effective_rank`), and
      relative_rank: the same divided by min(n - 1, dim).
      feature_std: ``[dim]``, standard deviation of each feature of the normalized rows, the mean of
        both views; about 1 / sqrt(dim) when the directions are evenly used.
      verdict: the same in words; it begins with "not finite", "complete collapse", "dimensional
        collapse", "narrow cone", "unaligned", "undecided" or "healthy".
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
        """A table of the numbers, with the verdict first."""
        numbers = {k: v for k, v in self._asdict().items() if k not in ("feature_std", "verdict")}
        std = self.feature_std
        numbers["feature_std"] = float(std.mean())
        lines = [f"{name.replace('_', ' '):20} {value:10.4f}" for name, value in numbers.items()]
        return "\n".join([self.verdict, *lines])


def chance_loss(num_candidates: int) -> float:
    """``ln K``: the cross-entropy of a model to which all K candidates look alike.

    For ``clip_loss`` and ``npairs_loss`` K is the global batch N, for ``ntxent_loss`` 2 N - 1.

    Raises:
      ValueError: if ``num_candidates`` is not a whole number >= 1.

    >>> print(f"{chance_loss(7):.4f}")
    1.9459
    """
    if num_candidates != int(num_candidates) or num_candidates < 1:
        raise ValueError(f"num_candidates must be a whole number >= 1, got {num_candidates}")
    return math.log(num_candidates)


def contrastive_accuracy(z1: ArrayLike, z2: ArrayLike) -> Array:
    """Share of rows of z1 whose pair is the nearest, by cosine, among all rows of z2.

    A row that shares the highest similarity with k - 1 others counts as 1 / k, so that collapsed
    embeddings score chance. NaN if any value is not finite: that is no matter of finding pairs.

    Args:
      z1, z2: ``[n, *features]``, paired embeddings, any scale.

    Returns:
      A scalar in [0, 1]; chance is 1 / n.

    Raises:
      ValueError: if the shapes differ, without rows, or for a dtype that is not float.

    >>> print(contrastive_accuracy(jnp.eye(4), jnp.eye(4)), contrastive_accuracy(*jnp.ones((2, 4, 3))))
    1.0 0.25
    """
    z1, z2 = _pairs(z1, z2)
    similarities = cosine_similarity(z1, z2)
    best = similarities == jnp.max(similarities, axis=1, keepdims=True)
    accuracy = jnp.mean(jnp.diagonal(best) / jnp.maximum(jnp.sum(best, axis=1), 1))
    return jnp.where(jnp.all(jnp.isfinite(z1) & jnp.isfinite(z2)), accuracy, jnp.nan)


def effective_rank(z: ArrayLike) -> float:
    """Number of directions that the centred rows use: ``exp`` of their singular values' entropy.

    With ``p_i`` the i-th singular value over their sum, ``exp(-sum p_i ln p_i)``: k for rows spread
    evenly over k directions. 0 if the centred rows hold less than 1e-6 of the rows' energy.

    Args:
      z: ``[n, *features]``. Rows are taken as they are; normalize them to count directions alone.

    Returns:
      A number in {0} or [1, min(n - 1, dim)]; NaN where a value is not finite.

    Raises:
      ValueError: without rows.

    References:
      Roy & Vetterli, The effective rank, 2007; Garrido et al., RankMe, 2022,
      https://arxiv.org/abs/2210.02885

    >>> print(round(effective_rank(jnp.concatenate([jnp.eye(3), -jnp.eye(3)])), 4))
    3.0
    """
    rows = np.asarray(z, np.float64)
    if not rows.size:
        raise ValueError(f"expected rows [n, *features], got shape {rows.shape}")
    rows = rows.reshape(len(rows), -1)
    if not np.isfinite(rows).all():
        return math.nan
    centred = rows - rows.mean(axis=0)
    if not (centred**2).sum() >= 1e-6 * (rows**2).sum() > 0:
        return 0.0
    singular = np.linalg.svd(centred, compute_uv=False)
    p = singular[singular > 0] / singular.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def mean_cosine(z: ArrayLike) -> Array:
    """Mean cosine of different rows: 1 in a collapse, near 0 when they spread. O(n dim).

    ``(n |mean u|^2 - mean |u|^2) / (n - 1)`` of the normalized rows u: the mean over all pairs, less
    the pairs of a row with itself.

    Args:
      z: ``[n, *features]``, n >= 2, any scale.

    Returns:
      A scalar in [-1 / (n - 1), 1].

    Raises:
      ValueError: if there are fewer than two rows.

    >>> print(mean_cosine(jnp.array([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])).round(3))
    -0.333
    """
    z = _whole(z)
    n = len(z)
    if n < 2:
        raise ValueError(f"cosines are those of different rows: expected at least 2, got {n}")
    u = l2_normalize(z.reshape(n, math.prod(z.shape[1:])))
    own = jnp.mean(jnp.sum(u * u, axis=1))  # 1, unless there are rows of zeros
    return (n * jnp.sum(jnp.mean(u, axis=0) ** 2) - own) / (n - 1)


def collapse_report(z1: ArrayLike, z2: ArrayLike, *, temperature: float) -> CollapseReport:
    """Sets the loss against chance and says whether, and how, the embeddings have collapsed.

    Not finite: values are NaN or infinite; nothing else is said. Complete collapse: all rows point the
    same way. Dimensional collapse: they differ, but along fewer than a tenth of the directions they
    could use, or along a single one. Narrow cone: they differ, but so little that at this temperature
    the loss can move over less than a tenth of its range, even if every pair is found. Unaligned: they
    spread, but fewer pairs are found than would rule out luck at 1 in 1,000. Undecided: they spread,
    but of fewer than 7 pairs even a perfect match may be luck. docs/collapse.md derives the bounds.

    Args:
      z1, z2: ``[n, *features]``, paired embeddings of a batch, n >= 2, any scale; normalized here.
      temperature: that of the training loss; ``loss`` and what counts as narrow depend on it.

    Returns:
      A :class:`CollapseReport`; printing it shows a table.

    Raises:
      ValueError: if there are fewer than two pairs, for a temperature that is not positive, or for
        arguments of another shape or dtype.

    >>> import jax
    >>> z = jax.random.normal(jax.random.key(0), (32, 16))
    >>> print(collapse_report(z, z, temperature=0.1).verdict)
    healthy: rows spread over 14.8 of 16 directions; 100 % find their pair; the loss is 0.01 of chance
    """
    z1, z2 = _pairs(z1, z2)
    n, dim = z1.shape
    if n < 2:
        raise ValueError(f"a collapse shows between rows: expected at least 2 pairs, got {n}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be a positive number, got {temperature}")
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
    if bad := not_finite(z1, z2):
        return CollapseReport(**numbers, verdict=bad)
    cosines = {
        name: float(c) for name, c in zip(("z1", "z2"), measured.concentrations, strict=True)
    }
    found = int(np.sum(found_alone(similarities)))
    return CollapseReport(**numbers, verdict=graded(numbers, cosines, found, n, dim, temperature))


class _Measured(NamedTuple):
    """What a report needs of the rows; pairs of entries are those of z1 and of z2."""

    loss: Array
    accuracy: Array
    alignment: Array
    uniformity: Array
    similarities: Array
    feature_std: Array
    directions: tuple[Array, Array]
    concentrations: tuple[Array, Array]


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
        concentrations=(mean_cosine(z1), mean_cosine(z2)),
    )


def _whole(z: ArrayLike) -> Array:
    """An array that is sharded over Explicit mesh axes, on every device; any other as it is."""
    z = jnp.asarray(z)
    mesh = explicit_mesh(z)
    return z if mesh is None else replicate_on(mesh, z)


def _pairs(z1: ArrayLike, z2: ArrayLike) -> tuple[Array, Array]:
    z1, z2 = _whole(z1), _whole(z2)
    if z1.shape != z2.shape or z1.ndim < 2 or not z1.size:
        raise ValueError(
            f"z1 and z2 must be [n, *features] of one shape, row i of both a pair; "
            f"got {z1.shape} and {z2.shape}"
        )
    width = math.prod(z1.shape[1:])
    return z1.reshape(len(z1), width), z2.reshape(len(z2), width)
