"""Scores of an encoder of images while it trains: kNN of its features, and how its views spread."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.running.examples import BATCH, Views, map_rows, spread
from experiments.running.progress import spreading
from experiments.running.verdict import CHECKED
from jaxcon.augment import to_float
from jaxcon.data.splits import Dataset, Split
from jaxcon.evaluation.knn import knn_accuracy
from jaxcon.training.state import TrainState

# At most so many training images, validation images and pairs of views.
MOST = (50_000, 10_000, CHECKED)
# With fewer it says little; more than a share of the images trained on in between cost too much.
_LEAST, _SHARES = (384, 128, 64), (1 / 4, 1 / 8, 1 / 16)
_SMALL = 64 * 64 * 3  # numbers of an image up to which a batch is larger


def make_evaluate(
    dataset: Dataset,
    encode: Callable[[Any, jax.Array], tuple[Any, Any]],
    views: Views,
    *,
    between: int,
) -> Callable[[Mesh], Callable[[TrainState], Mapping[str, float]]]:
    """Returns what makes, for the devices of a run, the function that scores its state.

    With classes, it is the kNN accuracy of validation images among training images; and always
    effective rank, alignment and uniformity of two views of validation images, which are drawn once and
    rounded to 8 bits. `counts` says of how many, which are spread evenly. No test image takes part. The
    average of the weights is scored if there is one. All devices share the images; where there are
    several processes, the first computes the scores from the features of all.

    Args:
      dataset: images.
      encode: maps variables and images in [0, 1] to features and embeddings.
      views: makes two views as in training.
      between: images trained on between two scores.
    """

    def over(mesh: Mesh) -> Callable[[TrainState], Mapping[str, float]]:
        neighbours, queries, pairs = counts(dataset, between)
        whole = NamedSharding(mesh, PartitionSpec())
        batch = BATCH if np.prod(dataset.train.image_shape) > _SMALL else 2 * BATCH
        features, embeddings = (
            jax.jit(lambda v, x, i=i: encode(v, to_float(x))[i], out_shardings=whole)
            for i in range(2)
        )
        viewed = _views(dataset.validation, pairs, views)
        train, validation = _some(dataset.train, neighbours), _some(dataset.validation, queries)
        classes = dataset.class_names is not None and len(validation) > 0
        own = [device for device in mesh.devices.flat if device in jax.local_devices()]

        def evaluate(state: TrainState) -> Mapping[str, float]:
            variables = state.variables(average=True)

            def mapped(apply: Any, images: Any) -> np.ndarray:
                return map_rows(lambda x: apply(variables, x), images, batch=batch, mesh=mesh)

            z = mapped(embeddings, viewed) if len(viewed) else np.empty((0, 0))
            x = mapped(features, _Joined(train.images, validation.images)) if classes else None
            if jax.process_index() != 0:
                return {}
            scores = spreading(*np.split(z, 2))
            if x is None:
                return scores
            return {"knn": _knn(x, train.labels, validation.labels, own), **scores}

        return evaluate

    return over


def counts(dataset: Dataset, between: int) -> tuple[int, int, int]:
    """Returns of how many training images, validation images and pairs of views the scores are.

    So many that scores take about a tenth of the time of training, but not so few that they say
    nothing.

    Args:
      dataset: the images.
      between: images trained on between two scores.
    """
    there = (len(dataset.train), len(dataset.validation), len(dataset.validation))
    neighbours, queries, pairs = (
        min(count, most, max(least, round(share * between)))
        for count, most, least, share in zip(there, MOST, _LEAST, _SHARES, strict=True)
    )
    return neighbours, queries, pairs


def told(dataset: Dataset, between: int) -> dict[str, str]:
    """Returns sentences on what was scored, for the figure."""
    neighbours, queries, pairs = counts(dataset, between)
    return {
        "knn": f"kNN classifies {queries:,} validation images by the features of {neighbours:,} "
        "training images.",
        "spread": f"The others are of the embeddings of two views of {pairs:,} validation images.",
    }


class _Joined:
    """The rows of one array or source after those of another."""

    def __init__(self, first: Any, second: Any) -> None:
        self._parts = first, second

    def __len__(self) -> int:
        return len(self._parts[0]) + len(self._parts[1])

    def __getitem__(self, index: int) -> np.ndarray:
        first, second = self._parts
        return first[index] if index < len(first) else second[index - len(first)]


class _Rows:
    """Some rows of an image source."""

    def __init__(self, images: Any, rows: np.ndarray) -> None:
        self._images, self._rows = images, rows
        self.shape = images.shape

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._images[int(self._rows[index])]


def _some(split: Split, most: int) -> Split:
    """Returns at most so many images, evenly spread."""
    if len(split) <= most:
        return split
    rows = np.arange(most) * len(split) // most
    labels = split.labels
    return Split(_Rows(split.images, rows), None if labels is None else labels[rows])


def _views(split: Split, count: int, views: Views) -> np.ndarray:
    """Returns a view of each of some images, then another of each, as uint8."""
    rows = spread(len(split), count)
    pairs: list[list[np.ndarray]] = [[], []]
    for start in range(0, len(rows), BATCH):
        for side, view in zip(pairs, views(split, rows[start : start + BATCH]), strict=True):
            side.append(np.asarray(jnp.clip(jnp.round(view * 255), 0, 255), np.uint8))
    return np.concatenate([*pairs[0], *pairs[1]]) if len(rows) else np.empty((0, 0))


def _knn(features: np.ndarray, train: Any, validation: Any, devices: list[Any]) -> float:
    """Returns the accuracy; NaN if features are not finite, as the run goes on."""
    if not np.isfinite(features).all():
        return float("nan")
    n = len(train)
    return knn_accuracy(features[:n], train, features[n:], validation, devices=devices)
