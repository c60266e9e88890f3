"""Batches of images, each with one of its captions: again a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from jaxcon.data.bad_images import BadImages
from jaxcon.data.batching import Batch, batches
from jaxcon.data.crops import Crops
from jaxcon.data.order import Draw, uniform, words
from jaxcon.data.reading import Bad
from jaxcon.data.splits import Split


class CaptionTokens:
    """The tokens of all captions of a split; draws which caption an image has at which step.

    Example:
      >>> tokens = CaptionTokens([[1, 2], [3, 0], [4, 0]], counts=[2, 1])
      >>> tokens.of(np.array([1, 0]), seed=0, step=0).tolist()
      [[4, 0], [3, 0]]

    Args:
      tokens: int `[captions, length]`, those of the first image first.
      counts: number of captions of each image, at least 1.
      weights: positive, one for each caption: how often it is drawn among those of its image; None
        draws all equally often.
    """

    def __init__(
        self,
        tokens: np.ndarray | Sequence[Sequence[int]],
        counts: np.ndarray | Sequence[int],
        weights: np.ndarray | Sequence[float] | None = None,
    ) -> None:
        self._tokens = np.asarray(tokens, np.int32)
        ends = np.cumsum(counts)
        if not len(ends) or ends[-1] != len(self._tokens) or min(counts) < 1:
            raise ValueError(
                f"{len(self._tokens)} captions do not match the counts, which sum to "
                f"{ends[-1] if len(ends) else 0} and must be at least 1 each"
            )
        weights = np.ones(len(self._tokens)) if weights is None else np.asarray(weights, float)
        self._last = ends - 1
        # Image i owns the stretch from edges[i] to edges[i + 1] of all weights laid end to end.
        self._upper = np.cumsum(weights)
        self._edges = np.concatenate([[0.0], self._upper[self._last]])

    def of(self, examples: np.ndarray, *, seed: int, step: int) -> np.ndarray:
        """Returns a caption of each example, drawn for (seed, step, row): int32 `[batch, length]`.

        Args:
          examples: int `[batch]`.
          seed: the seed of the order.
          step: training step.
        """
        share = uniform(words(len(examples), seed=seed, step=step, draw=Draw.CAPTION))
        low, high = self._edges[examples], self._edges[examples + 1]
        caption = np.searchsorted(self._upper, low + share * (high - low), side="right")
        return self._tokens[np.minimum(caption, self._last[examples])]


def pair_batches(
    images: Split,
    tokens: CaptionTokens,
    *,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    sharding: jax.sharding.Sharding | None = None,
    crops: Crops | None = None,
    num_workers: int = 0,
    bad_images: BadImages = "error",
    on_bad: Callable[[Bad], None] | None = None,
) -> Iterator[Batch]:
    """Yields batches as in `batching.batches`, with `"tokens"` of one caption: int32 `[batch, length]`.

    An image that stands in for one that cannot be read brings its own caption.

    Args:
      images: the images of a `PairSplit`.
      tokens: the tokens of their captions.
      seed: seed of the order, of the crops, and of which caption is drawn.
      batch_size: rows of the global batch.
      start_step: first step to yield.
      sharding: where the batch goes; None: the default device.
      crops: how views are cut, usually one, nearly all of the picture, and not mirrored:
        `Crops(side, views=1, area=(0.9, 1.0), flip=False)`.
      num_workers: as in `batches`, like the next two.
      bad_images: "error" or "skip".
      on_bad: called once with each image that was skipped.
    """
    return batches(
        images,
        seed=seed,
        batch_size=batch_size,
        start_step=start_step,
        sharding=sharding,
        crops=crops,
        num_workers=num_workers,
        bad_images=bad_images,
        on_bad=on_bad,
        beside=lambda step, rows: {"tokens": tokens.of(rows, seed=seed, step=step)},
    )
