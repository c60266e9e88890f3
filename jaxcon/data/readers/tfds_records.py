"""The records of a TFDS dataset with images: which parts there are, and reading them by position."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from jaxcon.data.headers import size_of
from jaxcon.data.photographs import Photographs
from jaxcon.data.pixels import SMALL, Shape, default_side, default_zoom, fit_array
from jaxcon.data.readers.tfds_prepare import prepared_builder
from jaxcon.data.splits import (
    TEST_SHARE,
    VALIDATION_SHARE,
    DataError,
    Split,
    Unreadable,
    split_indices,
)

_AT_A_TIME = 512  # records
_SAMPLE = 50  # images whose sizes are looked at

# TFDS warns that OpenCV would decode faster, once in every worker; pillow is what we install.
logging.getLogger("absl").addFilter(
    lambda record: not record.getMessage().startswith("OpenCV is not installed")
)


class Part(NamedTuple):
    """One of our three parts: positions in a split of TFDS."""

    split: str
    positions: np.ndarray


class Views(NamedTuple):
    """How images are brought to one shape.

    Attributes:
      shape: of what comes out.
      zoom: share of the shorter side that it shows.
      originals: whether training crops the images as they are stored.
    """

    shape: Shape
    zoom: float
    originals: bool


class TfdsImages:
    """Images of one TFDS split that stay on disk, as an `ImageSource`."""

    def __init__(self, source: Any, key: str, positions: np.ndarray, shape: Shape) -> None:
        self._source, self._key, self._positions = source, key, positions
        self.shape = shape

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int, /) -> np.ndarray:
        record = self._source[int(self._positions[index])]
        return fit_array(record[self._key], self.shape)


class TfdsStored:
    """Images of one TFDS split as they are stored, encoded, as `StoredImages`."""

    def __init__(self, source: Any, key: str, part: Part) -> None:
        self._source, self._key, self._part = source, key, part

    def __len__(self) -> int:
        return len(self._part.positions)

    def __getitem__(self, index: int, /) -> bytes:
        return bytes(self._source[int(self._part.positions[index])][self._key])

    def place(self, index: int, /) -> str:
        return f"{self._part.split}[{int(self._part.positions[index])}]"


class TfdsRecords:
    """The records of the dataset that TFDS knows as `name`, prepared if needed.

    Args:
      name: name of the dataset.
      data_dir: where TFDS prepares it; None: the user's cache folder.

    Attributes:
      image: key of the images.
      features: features of a record, by their keys.
    """

    def __init__(self, name: str, data_dir: str | os.PathLike[str] | None) -> None:
        self.name = name
        self._builder = prepared_builder(name, data_dir, check=_image_key)
        self.image = _image_key(self._builder)
        self.features: Mapping[str, Any] = self._builder.info.features

    def label(self) -> str | None:
        """Returns the key of the classes, or None."""
        features = self.features
        keys = [k for k, value in features.items() if isinstance(value, tfds.features.ClassLabel)]
        supervised = self._builder.info.supervised_keys
        for key in ("label", supervised[1] if supervised else None, *keys):
            if key in keys:
                return key
        return None

    def parts(self, label: str | None) -> dict[str, Part]:
        """Returns training, validation and test records; `sources.load` states the rule.

        Args:
          label: key of the classes, if they matter: a competition's test split has no labels.
        """
        info = self._builder.info
        sizes = {name: split.num_examples for name, split in info.splits.items()}
        if "train" not in sizes:
            raise DataError(
                f"{info.full_name} has no split named train (it has {', '.join(sizes)}); "
                "choose another dataset"
            )
        held_out = [name for name in ("test", "validation") if sizes.get(name)]
        if label and "test" in held_out and self._source("test")[0][label] < 0:
            held_out.remove("test")
        carved = split_indices(
            [str(position) for position in range(sizes["train"])],
            test_share=0.0 if held_out else TEST_SHARE,
            validation_share=0.0 if len(held_out) == 2 else VALIDATION_SHARE,
        )
        parts = {name: Part("train", positions) for name, positions in carved.items()}
        for part, split in zip(("test", "validation"), held_out, strict=False):
            parts[part] = Part(split, np.arange(sizes[split]))
        return parts

    def views(self, image_size: int | None) -> Views:
        """Returns how images are brought to one shape; see `sources.load` on `image_size`."""
        feature = self.features[self.image]
        height, width, channels = feature.shape
        fixed = None not in (height, width)
        photographs = not fixed or min(height, width) > SMALL
        if not photographs and image_size is None:
            return Views((height, width, channels), 1.0, originals=False)
        sizes = [(height, width)] if fixed else self._sample()
        side = image_size or default_side(sizes)
        # What is not 8-bit RGB is not stored as Pillow would read it.
        originals = photographs and channels == 3 and np.dtype(feature.np_dtype) == np.uint8
        zoom = default_zoom(sizes) if originals else 1.0
        return Views((side, side, channels), zoom, originals=originals)

    def _sample(self) -> list[tuple[int, int]]:
        """Returns the sizes of some training images, from their headers."""
        count = self._builder.info.splits["train"].num_examples
        some = np.unique(np.linspace(0, count - 1, _SAMPLE, dtype=np.int64))
        stored = self.stored(Part("train", some))
        sizes = [size_of(stored[row], stored.place(row)) for row in range(len(stored))]
        good = [size for size in sizes if not isinstance(size, Unreadable)]
        if not good:
            raise next(size for size in sizes if isinstance(size, Unreadable))
        return good

    def read(self, part: Part, *, without_images: bool = False) -> Iterator[Any]:
        """Yields the records in order, read many at a time, which is faster than one by one.

        Args:
          part: which records.
          without_images: whether to leave images undecoded.
        """
        source = self._source(part.split, skip=self.image if without_images else None)
        for start in range(0, len(part.positions), _AT_A_TIME):
            yield from source.__getitems__(part.positions[start : start + _AT_A_TIME].tolist())

    def stored(self, part: Part) -> TfdsStored:
        """Returns the images as they are stored, each read when it is needed."""
        return TfdsStored(self._source(part.split, skip=self.image), self.image, part)

    def on_disk(self, part: Part, shape: Shape) -> TfdsImages:
        """Returns the images, each read when it is needed."""
        return TfdsImages(self._source(part.split), self.image, part.positions, shape)

    def _source(self, split: str, *, skip: str | None = None) -> Any:
        """Returns random access to the records of a TFDS split; the feature `skip` stays undecoded."""
        decoders = {skip: tfds.decode.SkipDecoding()} if skip else None
        return self._builder.as_data_source(split, decoders=decoders)


def stored_split(
    records: TfdsRecords,
    part: Part,
    views: Views,
    labels: np.ndarray | Callable[[], np.ndarray] | None,
    *,
    at_once: bool,
) -> Split:
    """Returns the split of images that training crops as they are stored.

    Args:
      records: of the dataset.
      part: which of them.
      views: how evaluation sees them.
      labels: as those of a `Split`.
      at_once: whether what evaluation sees is read now.
    """
    stored = records.stored(part)
    images = Photographs(stored, views.shape, zoom=views.zoom)
    seen = images.read_all() if at_once else images
    return Split(seen, labels, originals=stored, zoom=views.zoom)


def fits_in_memory(parts: Mapping[str, Part], shape: Shape, memory_limit: int) -> bool:
    """Returns whether the images of all parts fit into that many bytes."""
    count = sum(len(part.positions) for part in parts.values())
    return count * int(np.prod(shape)) <= memory_limit


def _image_key(builder: Any) -> str:
    features = builder.info.features
    keys = [key for key, value in features.items() if isinstance(value, tfds.features.Image)]
    if not keys:
        raise DataError(
            f"{builder.info.name} has no images: its features are {', '.join(features)}; "
            "choose an image dataset"
        )
    return "image" if "image" in keys else keys[0]
