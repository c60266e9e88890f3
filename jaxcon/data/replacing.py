"""What evaluation sees of pictures of which some cannot be read: others of the same class instead."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from jaxcon.data.photographs import Photographs
from jaxcon.data.pixels import Shape
from jaxcon.data.splits import StoredImages, Unreadable

_TRIES = 20  # pictures one after the other that cannot be read are no accident


class ReplacingPhotographs(Photographs):
    """Evaluation views, as an `ImageSource`; that of a damaged picture is the next one's of its class.

    Args:
      stored: the pictures, as training crops them.
      shape: (side, side, channels) of the views.
      rows: which of `stored`, int `[n]`.
      labels: int `[n]`, the class of each; None if they have none.
      zoom: share of the shorter side that a view shows, in (0, 1].
    """

    def __init__(
        self,
        stored: StoredImages,
        shape: Shape,
        rows: np.ndarray,
        labels: np.ndarray | None,
        *,
        zoom: float,
    ) -> None:
        super().__init__(stored, shape, rows, zoom=zoom)
        self._labels = np.zeros(len(rows), np.int32) if labels is None else labels

    def __getitem__(self, index: int, /) -> np.ndarray:
        try:
            return super().__getitem__(index)
        except Unreadable:
            for other in itertools.islice(self._others(index), _TRIES):
                try:
                    return super().__getitem__(other)
                except Unreadable:
                    continue
            raise

    def _others(self, index: int) -> Iterator[int]:
        """Yields the others of the class, those after it first."""
        alike = np.flatnonzero(self._labels == self._labels[index])
        yield from alike[alike > index].tolist()
        yield from alike[alike < index].tolist()
