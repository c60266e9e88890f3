"""Images and captions that take the place of data in a plan: of the right shapes, and blank."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from experiments.running.sources import images_of
from jaxcon.data.shipped import CONTENTS
from jaxcon.data.splits import Dataset, PairDataset, PairSplit, Split

PHOTOGRAPHS = "photographs"  # what a plan calls images of which only the size is known
_SMALL = 64  # pixels: a plan takes images up to this side for small ones, used as they are
ROWS = 16  # enough to show what a batch consists of, and for a loss to have something to say


class Imagined(NamedTuple):
    """What a plan takes for data.

    Attributes:
      config: the options, with the name of the dataset that decides the recipe.
      dataset: maps a number of training images to a dataset.
      examples: how many there are said to be.
      side: of the images.
    """

    config: Any
    dataset: Callable[[int], Any]
    examples: int
    side: int


@dataclasses.dataclass
class Blank:
    """Black images, as many as one likes, without files: an `ImageSource`, and `StoredImages`."""

    shape: tuple[int, int, int]
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> np.ndarray:
        return np.zeros(self.shape, np.uint8)

    def place(self, index: int, /) -> str:
        return f"image {index}"


def known(
    dataset: str, image_size: int | None, usual: int
) -> tuple[str, tuple[int, int, int], int]:
    """Returns what is known about images without reading any.

    Example:
      >>> known("digits", None, usual=1_281_167)
      ('digits', (8, 8, 1), 1259)
      >>> known("digits", 224, usual=1_281_167)
      ('photographs', (224, 224, 3), 1281167)

    Args:
      dataset: value of the flag; at another size than its own, a dataset that ships with jaxcon
        stands for photographs.
      image_size: value of the flag.
      usual: number of training images to assume where that is not known.

    Returns:
      The name that decides the recipe, (height, width, channels), and number of training images.

    Raises:
      ValueError: if the size would have to be read from the data.
    """
    shape, count = CONTENTS.get(dataset, (None, usual))
    if image_size is None and shape is None:
        raise ValueError(
            f"--plan reads no data, and {dataset} may have images of any size; give it --image-size"
        )
    if shape is None or image_size not in (None, shape[0]):
        side = image_size or 0
        return PHOTOGRAPHS if dataset in CONTENTS else dataset, (side, side, 3), usual
    return dataset, shape, count


def blank_images(name: str, shape: tuple[int, int, int], cropped: bool, count: int) -> Dataset:
    """Returns a dataset of blank images without classes.

    Args:
      name: from `known`.
      shape: (height, width, channels).
      cropped: whether they are surely photographs, of any size.
      count: how many.
    """
    split = _blank_split(name, shape, cropped, count)
    return Dataset(name, split, split, split)


def blank_pairs(
    name: str, shape: tuple[int, int, int], vocabulary: int, *, cropped: bool = False
) -> PairDataset:
    """Returns blank images, `ROWS` of them, with words enough for a vocabulary of that size."""
    words = [f"{number * 2654435761 % 2**32:08x}" for number in range(2 * vocabulary)]
    captions = [" ".join(words), " ".join(reversed(words)), *words[: ROWS - 2]]
    split = PairSplit(_blank_split(name, shape, cropped, ROWS), tuple((text,) for text in captions))
    return PairDataset(name, split, split, split)


def _blank_split(name: str, shape: tuple[int, int, int], cropped: bool, count: int) -> Split:
    """Returns images that come as those of the dataset would: photographs are cropped when read."""
    blank = Blank(shape, count)
    small = not cropped and (name in CONTENTS or max(shape[:2]) <= _SMALL)
    return Split(blank, originals=None if small else blank)


def given(config: Any, examples: int | None, *, dataset: Any) -> Imagined:
    """Returns a dataset that was passed in, for a plan: it has been read already."""
    side = max(images_of(dataset.train).image_shape[:2])
    return Imagined(config, lambda count: dataset, examples or len(dataset.train), side)
