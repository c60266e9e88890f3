"""Random resized crops of photographs, drawn on the host: which part of a picture a view shows.

A crop is taken from the original, not from a picture that was fitted to a square before, and depends on
(seed, step, row, view) and on the size of the picture alone.

>>> crops = Crops(side=224)
>>> box = crops.box((375, 500), seed=0, step=3, row=17, view=1)
>>> 0 <= box.left and box.left + box.width <= 500
True
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from jaxcon.data.order import Draw, uniform, words
from jaxcon.data.splits import DataError

_TRIES = 10  # as in torchvision, to find a crop that fits


class Box(NamedTuple):
    """A part of an upright picture.

    Attributes:
      top: first row, in pixels of the picture; not rounded.
      left: first column.
      height: in pixels, above 0.
      width: likewise.
      flipped: whether left and right are exchanged afterwards.
    """

    top: float
    left: float
    height: float
    width: float
    flipped: bool


@dataclasses.dataclass(frozen=True)
class Crops:
    """How views are cut out of a picture.

    Example:
      >>> Crops(side=224, views=1, area=(0.9, 1.0), flip=False).views
      1

    Args:
      side: of the square views, in pixels.
      views: number of views of a picture.
      area: range of the crop's share of the picture, `0 < low <= high <= 1`.
      ratio: range of width / height, drawn uniformly in its logarithm.
      flip: whether every second view, at random, is mirrored.

    Raises:
      DataError: if a setting is out of its range.
    """

    side: int
    views: int = 2
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True

    def __post_init__(self) -> None:
        if self.side < 1 or self.views < 1:
            raise DataError(
                f"crops: side and views must be at least 1, got {self.side} and {self.views}"
            )
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise DataError(f"crops: area must be within 0 < low <= high <= 1, got {self.area}")
        if not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
            raise DataError(f"crops: ratio must be within 0 < low <= high, got {self.ratio}")

    def box(self, size: tuple[int, int], *, seed: int, step: int, row: int, view: int) -> Box:
        """Draws the box of one view.

        Takes the first of ten draws of area and aspect that fits into the picture, as torchvision's
        `RandomResizedCrop` does; if none fits, the first draw with its aspect moved until it fits; if
        no aspect in the range fits, the largest centre crop with an aspect in the range
        (`jaxcon.augment.random_resized_crop` says the same of crops on the device). torchvision rounds
        to whole pixels at once; here whoever decodes rounds, to the pixels that there are then.

        Args:
          size: (height, width) of the upright picture.
          seed: any int from 0 to 2**64 - 1.
          step: training step, from 0.
          row: row of the global batch.
          view: number of the view, below `views`.
        """
        raw = words(2 * _TRIES + 3, seed=seed, step=step, draw=Draw.CROP, row=row, part=view)
        draws = uniform(raw)
        lowest, highest = (math.log(bound) for bound in self.ratio)
        share = self.area[0] + (self.area[1] - self.area[0]) * draws[:_TRIES]
        aspect = lowest + (highest - lowest) * draws[_TRIES : 2 * _TRIES]
        crop, anywhere = _crop_size(size, share, aspect, (lowest, highest))
        place = draws[-3:-1] if anywhere else (0.5, 0.5)
        top, left = (float(p * (n - m)) for p, n, m in zip(place, size, crop, strict=True))
        return Box(top, left, *crop, flipped=self.flip and bool(draws[-1] < 0.5))


def _crop_size(
    size: tuple[int, int], share: np.ndarray, aspect: np.ndarray, limits: tuple[float, float]
) -> tuple[tuple[float, float], bool]:
    """Returns (height, width) of a crop, and whether it may lie anywhere.

    Args:
      size: (height, width) of the picture.
      share: shares of its area, drawn.
      aspect: logarithms of width / height, drawn.
      limits: the least and the greatest of these.
    """
    height, width = size
    area, own = height * width, math.log(width / height)
    heights, widths = np.sqrt(share * area / np.exp(aspect)), np.sqrt(share * area * np.exp(aspect))
    if (fits := (heights <= height) & (widths <= width)).any():
        first = int(fits.argmax())
        return (float(heights[first]), float(widths[first])), True
    # A share a of a picture of aspect r fits with aspects from a r to r / a.
    room = math.log(share[0])
    low, high = max(limits[0], own + room), min(limits[1], own - room)
    if low <= high:
        moved = min(max(float(aspect[0]), low), high)
        whole = float(share[0]) * area
        tall, wide = math.sqrt(whole / math.exp(moved)), math.sqrt(whole * math.exp(moved))
        return (min(tall, height), min(wide, width)), True
    excess = own - min(max(own, limits[0]), limits[1])  # over the nearest aspect in the range
    return (height * math.exp(min(0.0, excess)), width * math.exp(min(0.0, -excess))), False
