"""One entry a public loss and form of it: how to call it on random rows, and what to hold it to.

Adding a loss takes an entry in ``KEYWORDS`` (what it must accept), and one or more in ``CASES``. Every
test of ``test_contract_*.py`` then runs over it.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from jaxcon import losses
from tests.losses import formulas
from tests.losses.formulas import Anchors
from tests.marks import exhaustive_unless

N, DIM = 16, 8

STATISTICS = {"axis_name", "where"}  # of the batch: no values per anchor to weigh and reduce
ANCHORED = STATISTICS | {"weights", "reduce_fn"}
TILED = {"block_size", "exchange", "precision"}  # of the losses evaluated tile by tile
PAIRWISE = ANCHORED | TILED
# The vocabulary that each public loss accepts, and its own settings.
KEYWORDS = {
    "ntxent_loss": PAIRWISE | {"ids", "temperature"},
    "info_nce_loss": PAIRWISE
    | {"ids", "labels", "temperature", "in_batch", "negatives", "negative_ids"},
    "npairs_loss": PAIRWISE | {"ids", "temperature", "normalize", "l2_weight"},
    "clip_loss": PAIRWISE | {"ids", "labels", "temperature", "label_smoothing"},
    "supcon_loss": PAIRWISE | {"ids", "temperature"},
    "dcl_loss": PAIRWISE | {"ids", "temperature", "sigma"},
    "hard_negative_loss": PAIRWISE | {"ids", "temperature", "beta", "positive_prior"},
    "siglip_loss": PAIRWISE | {"ids", "labels", "temperature", "bias"},
    "triplet_loss": ANCHORED | {"ids", "margin", "mining"},
    "multi_similarity_loss": PAIRWISE | {"ids", "alpha", "beta", "base"},
    "circle_loss": PAIRWISE | {"ids", "margin", "gamma"},
    "spectral_contrastive_loss": PAIRWISE | {"ids"},
    "barlow_twins_loss": STATISTICS | {"off_diagonal_weight", "scale"},
    "vicreg_loss": STATISTICS | {"invariance", "variance", "covariance"},
    "sample_correlation_loss": PAIRWISE | {"ids", "off_diagonal_weight", "scale"},
    "gaussian_clip_loss": PAIRWISE | {"ids", "exact"},
    "csd_loss": PAIRWISE | {"ids", "scale", "shift"},
    "cosine_regression_loss": ANCHORED,
    "alignment_loss": ANCHORED | {"alpha"},
    "uniformity_loss": STATISTICS | TILED | {"t"},
    "koleo_loss": ANCHORED,
    "variance_loss": STATISTICS,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A loss in one of its forms.

    Attributes:
      id: what a test calls it: the loss's name, and in brackets the form.
      formula: see :mod:`tests.losses.formulas`.
      args: names of the positional arguments, all with a row per example.
      settings: fixed keyword settings.
      always: row keywords that belong to the form, ``labels`` say.
      views: anchors per row.
      normalized: whether the scale of a row of an embedding is irrelevant.
      symmetric: whether exchanging z1 and z2 changes nothing.
      held: whether the paper holds something constant in the gradient.
      chance: the value when all n embeddings are equal, where the paper gives one.
      bounded: whether the value is never negative.
      aligned: whether perfectly aligned pairs are its hard case (single positive, low temperature).
      deviations: trailing shape of a row's log standard deviation.
    """

    id: str
    formula: Callable[..., Any]
    args: tuple[str, ...] = ("z1", "z2")
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    always: tuple[str, ...] = ()
    views: int = 1
    normalized: bool = True
    symmetric: bool = False
    held: bool = False
    chance: Callable[[int], float] | None = None
    bounded: bool = False
    aligned: bool = False
    deviations: tuple[int, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether it is the loss with its defaults, not another form of it."""
        return self.id == self.name

    @property
    def name(self) -> str:
        """The public name of the loss."""
        return self.id.split("[")[0]

    @property
    def loss(self) -> Callable[..., Any]:
        """The public function."""
        return getattr(losses, self.name)

    @property
    def keywords(self) -> set[str]:
        """What it must accept."""
        return KEYWORDS[self.name]

    @property
    def has_anchors(self) -> bool:
        """Whether the loss has values per anchor."""
        return "reduce_fn" in self.keywords

    def row_names(self) -> tuple[str, ...]:
        """Row keywords that change who takes part: all the tests of masks pass these."""
        optional = tuple(k for k in ("where", "weights", "ids") if k in self.keywords)
        return (*optional, *self.always)

    def inputs(self, seed: int = 0, n: int = N, dim: int = DIM) -> dict[str, np.ndarray]:
        """Random positional arguments in float64: pairs that resemble each other, labels of 4."""
        rng = np.random.default_rng([seed, len(self.id)])
        centre = rng.normal(size=(n, dim))
        make = {
            "z": lambda: centre + 0.5 * rng.normal(size=(n, dim)),
            "z1": lambda: centre + 0.5 * rng.normal(size=(n, dim)),
            "z2": lambda: centre + 0.5 * rng.normal(size=(n, dim)),
            "predictions": lambda: centre + 0.5 * rng.normal(size=(n, dim)),
            "targets": lambda: centre + 0.5 * rng.normal(size=(n, dim)),
            "negatives": lambda: rng.normal(size=(n, 3, dim)),
            "log_std1": lambda: 0.3 * rng.normal(size=(n, *self.deviations)),
            "log_std2": lambda: 0.3 * rng.normal(size=(n, *self.deviations)),
            "labels": lambda: rng.integers(0, 4, n).astype(np.int32),
        }
        return {name: make[name]() for name in self.args}

    def rows(self, seed: int = 0, n: int = N, names: tuple[str, ...] | None = None) -> dict:
        """Random values of the row keywords: 1 in 4 rows masked, unevenly; some ids repeated."""
        rng = np.random.default_rng([seed, 1, len(self.id)])
        where = rng.random(n) > 0.25
        where[: n // 8] = False  # a device without a valid row
        make = {
            "where": where,
            "weights": rng.uniform(0.2, 2.0, n) * (rng.random(n) > 0.15),
            "ids": rng.integers(0, 2 * n, n).astype(np.int32) // 2,
            "labels": rng.integers(0, max(1, n // 2), n).astype(np.int32),
        }
        return {name: make[name] for name in (self.row_names() if names is None else names)}

    def neutral(self, n: int = N) -> dict:
        """Row keywords that change nothing: the same compiled function, no mask."""
        make = {
            "where": np.ones(n, bool),
            "weights": np.ones(n),
            "ids": np.arange(n, dtype=np.int32),
        }
        return {k: make[k] for k in self.row_names() if k in make} | self.rows(
            n=n, names=self.always
        )

    def anchors(self, inputs: Mapping, rows: Mapping, held: Mapping | None = None) -> Any:
        """The formula on the rows that ``where`` leaves: values per anchor, scattered, or a scalar."""
        n = len(next(iter(inputs.values())))
        where = np.asarray(rows.get("where", np.ones(n, bool)))
        names = {"ids": np.asarray(rows.get("ids", np.arange(n)))} if "ids" in self.keywords else {}
        names |= {k: np.asarray(rows[k]) for k in self.always}
        names = {k: v[where] for k, v in names.items()}
        values = [np.asarray(v)[where] for v in inputs.values()]
        fixed = None if held is None else tuple(np.asarray(v)[where] for v in held.values())
        result = self.formula(*values, **names, **self.settings, held=fixed)
        if not self.has_anchors:
            return result
        everyone = np.tile(where, self.views)
        scattered = Anchors(
            np.zeros(len(everyone)), np.zeros(len(everyone), bool), np.ones(len(everyone))
        )
        scattered.values[everyone] = np.where(result.valid, result.values, 0)
        scattered.valid[everyone] = result.valid
        if result.count is not None:
            scattered.count[everyone] = result.count
        return scattered

    def expected(self, inputs: Mapping, rows: Mapping, held: Mapping | None = None) -> float:
        """The mean over anchors, by the formula."""
        result = self.anchors(inputs, rows, held)
        if not self.has_anchors:
            return float(result)
        weights = np.asarray(rows.get("weights", np.ones(len(result.valid) // self.views)))
        w = np.tile(weights, self.views) * result.valid * result.count
        return float(np.sum(w * result.values) / np.sum(w)) if np.sum(w) else 0.0

    def embeddings(self) -> list[str]:
        """The positional arguments that are differentiated."""
        return [name for name in self.args if name != "labels"]


_QUEUE = np.random.default_rng(7).normal(size=(5, DIM))

CASES = [
    Case(
        "ntxent_loss",
        formulas.ntxent,
        views=2,
        symmetric=True,
        chance=lambda n: np.log(2 * n - 1),
        bounded=True,
        aligned=True,
    ),
    Case("npairs_loss", formulas.npairs, chance=np.log, bounded=True, aligned=True),
    Case(
        "npairs_loss[raw]",
        formulas.npairs,
        settings={"normalize": False, "l2_weight": 0.02, "temperature": 4.0},
        normalized=False,
        bounded=True,
    ),
    Case("clip_loss", formulas.clip, symmetric=True, chance=np.log, bounded=True, aligned=True),
    Case(
        "clip_loss[labels]",
        formulas.clip,
        always=("labels",),
        settings={"temperature": 0.2},
        symmetric=True,
        bounded=True,
    ),
    Case(
        "clip_loss[smoothing]",
        formulas.clip,
        settings={"label_smoothing": 0.1},
        symmetric=True,
        chance=np.log,
    ),
    Case("info_nce_loss", formulas.info_nce, chance=np.log, bounded=True, aligned=True),
    Case(
        "info_nce_loss[labels]",
        formulas.info_nce,
        always=("labels",),
        settings={"temperature": 0.2},
        bounded=True,
    ),
    Case(
        "info_nce_loss[queue]",
        formulas.info_nce,
        settings={"negatives": _QUEUE, "negative_ids": np.arange(5, dtype=np.int32)},
        bounded=True,
        aligned=True,
    ),
    Case(
        "info_nce_loss[hard]",
        formulas.info_nce,
        args=("z1", "z2", "negatives"),
        settings={"in_batch": False},
        chance=lambda n: np.log(4),
        bounded=True,
        aligned=True,
    ),
    Case("supcon_loss", formulas.supcon, args=("z", "labels"), bounded=True),
    Case("dcl_loss", formulas.dcl, views=2, symmetric=True),
    Case(
        "dcl_loss[sigma]",
        formulas.dcl,
        settings={"sigma": 0.5},
        views=2,
        symmetric=True,
        held=True,
    ),
    Case(
        "hard_negative_loss",
        formulas.hard_negative,
        views=2,
        symmetric=True,
        chance=lambda n: np.log(2 * n - 1),
        bounded=True,
        aligned=True,
    ),
    Case(
        "hard_negative_loss[debiased]",
        formulas.hard_negative,
        settings={"beta": 0.0, "positive_prior": 0.1},
        views=2,
        symmetric=True,
        bounded=True,
    ),
    Case("siglip_loss", formulas.siglip, symmetric=True, bounded=True, aligned=True),
    Case(
        "siglip_loss[labels]",
        formulas.siglip,
        always=("labels",),
        settings={"bias": -2.0},
        bounded=True,
    ),
    Case("barlow_twins_loss", formulas.barlow_twins, normalized=False, bounded=True),
    Case("vicreg_loss", formulas.vicreg, normalized=False, symmetric=True, bounded=True),
    Case("sample_correlation_loss", formulas.sample_correlation, normalized=False, bounded=True),
    Case(
        "gaussian_clip_loss",
        formulas.gaussian_clip,
        args=("z1", "z2", "log_std1", "log_std2"),
        normalized=False,
        bounded=True,
    ),
    Case(
        "gaussian_clip_loss[exact]",
        formulas.gaussian_clip,
        args=("z1", "z2", "log_std1", "log_std2"),
        settings={"exact": True},
        normalized=False,
        bounded=True,
    ),
    Case(
        "csd_loss",
        formulas.csd,
        args=("z1", "z2", "log_std1", "log_std2"),
        bounded=True,
    ),
    Case(
        "csd_loss[features]",
        formulas.csd,
        args=("z1", "z2", "log_std1", "log_std2"),
        settings={"scale": 3.0, "shift": 8.0},
        deviations=(DIM,),
        bounded=True,
    ),
    Case("triplet_loss", formulas.triplet(formulas.every_triplet), args=("z", "labels")),
    Case(
        "triplet_loss[semi_hard]",
        formulas.triplet(formulas.semi_hard_triplets),
        args=("z", "labels"),
        settings={"mining": losses.semi_hard},
    ),
    Case(
        "triplet_loss[hardest]",
        formulas.triplet(formulas.hardest_triplet),
        args=("z", "labels"),
        settings={"mining": losses.hardest},
    ),
    Case(
        "multi_similarity_loss",
        formulas.multi_similarity,
        args=("z", "labels"),
        bounded=True,
    ),
    Case("circle_loss", formulas.circle, args=("z", "labels"), held=True, bounded=True),
    Case(
        "spectral_contrastive_loss",
        formulas.spectral_contrastive,
        normalized=False,
        symmetric=True,
    ),
    Case(
        "cosine_regression_loss",
        formulas.cosine_regression,
        args=("predictions", "targets"),
        held=True,
        chance=lambda n: 0.0,
        bounded=True,
    ),
    Case("alignment_loss", formulas.alignment, symmetric=True, chance=lambda n: 0.0, bounded=True),
    Case(
        "alignment_loss[alpha]",
        formulas.alignment,
        settings={"alpha": 1.0},
        symmetric=True,
        bounded=True,
    ),
    Case("uniformity_loss", formulas.uniformity, args=("z",), chance=lambda n: 0.0),
    Case("koleo_loss", formulas.koleo, args=("z",)),
    Case("variance_loss", formulas.variance, args=("z",), normalized=False, bounded=True),
]

TILED = [c for c in CASES if "block_size" in inspect.signature(c.loss).parameters]
# One loss for each way through the engine.
FAMILIES = ("ntxent_loss", "clip_loss", "supcon_loss", "siglip_loss", "gaussian_clip_loss")


def each(
    keep: Callable[[Case], bool] = lambda case: True,
    *,
    all_forms: bool = False,
    others: Callable[..., list[Any]] = exhaustive_unless,
) -> Any:
    """Runs a test over the cases that ``keep`` keeps: by default over every loss as it is.

    A test whose program no other test compiles leaves the further forms of a loss to ``-m exhaustive``,
    or with ``others=slow_unless`` to CI.
    """
    return pytest.mark.parametrize(
        "case",
        others(lambda case: case.plain or all_forms, filter(keep, CASES)),
        ids=lambda case: case.id,
    )
