"""A case of the contract: a loss in one of its forms, its random rows, and its value by the formula."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxcon import losses
from tests.losses.formulas.anchors import Anchors

N, DIM = 16, 8


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A loss in one of its forms.

    Attributes:
      id: what a test calls it: the loss's name, and in brackets the form.
      formula: see `tests.losses.formulas`.
      keywords: what it must accept.
      args: names of the positional arguments, all with a row per example.
      settings: fixed keyword settings.
      always: row keywords that belong to the form, `labels` say.
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
    keywords: set[str]
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
        """The formula on the rows that `where` leaves: values per anchor, scattered, or a scalar."""
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
