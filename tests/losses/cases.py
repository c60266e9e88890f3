"""One entry a public loss and form of it: how to call it on random rows, and what to hold it to.

Adding a loss takes an entry in `KEYWORDS` (what it must accept), and one or more in `CASES`. Every
test of `test_contract_*.py` then runs over it.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jaxcon import losses
from tests.losses.case import DIM, Case
from tests.losses.formulas import (
    correlation,
    info_nce,
    margin,
    mining,
    predictive,
    probabilistic,
    regularizers,
    reweighted,
    sigmoid,
    softmax,
    supervised,
)
from tests.marks import exhaustive_unless

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


def form(id: str, formula: Callable[..., Any], **settings: Any) -> Case:
    """A case of the loss that `id` begins with."""
    return Case(id, formula, KEYWORDS[id.split("[")[0]], **settings)


_QUEUE = np.random.default_rng(7).normal(size=(5, DIM))

CASES = [
    form(
        "ntxent_loss",
        softmax.ntxent,
        views=2,
        symmetric=True,
        chance=lambda n: np.log(2 * n - 1),
        bounded=True,
        aligned=True,
    ),
    form("npairs_loss", softmax.npairs, chance=np.log, bounded=True, aligned=True),
    form(
        "npairs_loss[raw]",
        softmax.npairs,
        settings={"normalize": False, "l2_weight": 0.02, "temperature": 4.0},
        normalized=False,
        bounded=True,
    ),
    form("clip_loss", softmax.clip, symmetric=True, chance=np.log, bounded=True, aligned=True),
    form(
        "clip_loss[labels]",
        softmax.clip,
        always=("labels",),
        settings={"temperature": 0.2},
        symmetric=True,
        bounded=True,
    ),
    form(
        "clip_loss[smoothing]",
        softmax.clip,
        settings={"label_smoothing": 0.1},
        symmetric=True,
        chance=np.log,
    ),
    form("info_nce_loss", info_nce.info_nce, chance=np.log, bounded=True, aligned=True),
    form(
        "info_nce_loss[labels]",
        info_nce.info_nce,
        always=("labels",),
        settings={"temperature": 0.2},
        bounded=True,
    ),
    form(
        "info_nce_loss[queue]",
        info_nce.info_nce,
        settings={"negatives": _QUEUE, "negative_ids": np.arange(5, dtype=np.int32)},
        bounded=True,
        aligned=True,
    ),
    form(
        "info_nce_loss[hard]",
        info_nce.info_nce,
        args=("z1", "z2", "negatives"),
        settings={"in_batch": False},
        chance=lambda n: np.log(4),
        bounded=True,
        aligned=True,
    ),
    form("supcon_loss", supervised.supcon, args=("z", "labels"), bounded=True),
    form("dcl_loss", reweighted.dcl, views=2, symmetric=True),
    form(
        "dcl_loss[sigma]",
        reweighted.dcl,
        settings={"sigma": 0.5},
        views=2,
        symmetric=True,
        held=True,
    ),
    form(
        "hard_negative_loss",
        reweighted.hard_negative,
        views=2,
        symmetric=True,
        chance=lambda n: np.log(2 * n - 1),
        bounded=True,
        aligned=True,
    ),
    form(
        "hard_negative_loss[debiased]",
        reweighted.hard_negative,
        settings={"beta": 0.0, "positive_prior": 0.1},
        views=2,
        symmetric=True,
        bounded=True,
    ),
    form("siglip_loss", sigmoid.siglip, symmetric=True, bounded=True, aligned=True),
    form(
        "siglip_loss[labels]",
        sigmoid.siglip,
        always=("labels",),
        settings={"bias": -2.0},
        bounded=True,
    ),
    form("barlow_twins_loss", correlation.barlow_twins, normalized=False, bounded=True),
    form("vicreg_loss", correlation.vicreg, normalized=False, symmetric=True, bounded=True),
    form("sample_correlation_loss", correlation.sample_correlation, normalized=False, bounded=True),
    form(
        "gaussian_clip_loss",
        probabilistic.gaussian_clip,
        args=("z1", "z2", "log_std1", "log_std2"),
        normalized=False,
        bounded=True,
    ),
    form(
        "gaussian_clip_loss[exact]",
        probabilistic.gaussian_clip,
        args=("z1", "z2", "log_std1", "log_std2"),
        settings={"exact": True},
        normalized=False,
        bounded=True,
    ),
    form(
        "csd_loss",
        probabilistic.csd,
        args=("z1", "z2", "log_std1", "log_std2"),
        bounded=True,
    ),
    form(
        "csd_loss[features]",
        probabilistic.csd,
        args=("z1", "z2", "log_std1", "log_std2"),
        settings={"scale": 3.0, "shift": 8.0},
        deviations=(DIM,),
        bounded=True,
    ),
    form("triplet_loss", mining.triplet(mining.every_triplet), args=("z", "labels")),
    form(
        "triplet_loss[semi_hard]",
        mining.triplet(mining.semi_hard_triplets),
        args=("z", "labels"),
        settings={"mining": losses.semi_hard},
    ),
    form(
        "triplet_loss[hardest]",
        mining.triplet(mining.hardest_triplet),
        args=("z", "labels"),
        settings={"mining": losses.hardest},
    ),
    form(
        "multi_similarity_loss",
        margin.multi_similarity,
        args=("z", "labels"),
        bounded=True,
    ),
    form("circle_loss", margin.circle, args=("z", "labels"), held=True, bounded=True),
    form(
        "spectral_contrastive_loss",
        margin.spectral_contrastive,
        normalized=False,
        symmetric=True,
    ),
    form(
        "cosine_regression_loss",
        predictive.cosine_regression,
        args=("predictions", "targets"),
        held=True,
        chance=lambda n: 0.0,
        bounded=True,
    ),
    form(
        "alignment_loss", regularizers.alignment, symmetric=True, chance=lambda n: 0.0, bounded=True
    ),
    form(
        "alignment_loss[alpha]",
        regularizers.alignment,
        settings={"alpha": 1.0},
        symmetric=True,
        bounded=True,
    ),
    form("uniformity_loss", regularizers.uniformity, args=("z",), chance=lambda n: 0.0),
    form("koleo_loss", regularizers.koleo, args=("z",)),
    form("variance_loss", regularizers.variance, args=("z",), normalized=False, bounded=True),
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
    """Runs a test over the cases that `keep` keeps: by default over every loss as it is.

    A test whose program no other test compiles leaves the further forms of a loss to `-m exhaustive`,
    or with `others=slow_unless` to CI.
    """
    return pytest.mark.parametrize(
        "case",
        others(lambda case: case.plain or all_forms, filter(keep, CASES)),
        ids=lambda case: case.id,
    )
