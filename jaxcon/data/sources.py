"""`load`: one call for shipped datasets, a folder of images, or a TFDS name.

>>> digits = load("digits")
>>> digits.train.images.shape, digits.train.images.dtype, len(digits.class_names or ())
((1259, 8, 8, 1), dtype('uint8'), 10)
"""

from __future__ import annotations

import os
import re

from jaxcon.data.messages import cut
from jaxcon.data.shipped import SHIPPED
from jaxcon.data.splits import DataError, Dataset, ImageSource, Split

__all__ = ["MEMORY_LIMIT", "DataError", "Dataset", "ImageSource", "Split", "load", "refuse_path"]

MEMORY_LIMIT = 2**30
_ALMOST_FOLDER = r"(\w*folders?|dir|directory|files?|paths?|images?)\s*[:=]"


def load(
    dataset: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> Dataset:
    """Loads train, validation and test images, preparing the dataset first where that is needed.

    Which images are test images is a pure function of the data (`splits.split_indices`):

    - `"digits"`: 1259 train, 179 validation, 359 test.
    - `"scenes"`: 10,000 train, 1,000 validation, 1,000 test, without labels.
    - `"folder:PATH"`: 70 % train, 10 % validation, 20 % test of every class.
    - a TFDS name: its own test split; if it has none, or one without labels, its validation split is
      used for testing; and if it has neither, 20 % of train. Validation is its own split or 10 % of
      train.

    Args:
      dataset: `"digits"`, `"scenes"`, `"folder:PATH"`, or a name of TensorFlow Datasets such as
        `"cifar10"`.
      data_dir: where TFDS prepares datasets; by default `$XDG_CACHE_HOME/jaxcon` or `~/.cache/jaxcon`.
        A folder in an object store, `gs://...` or `s3://...`, is copied there before it is read.
      image_size: side of the square that images are resized and cropped to. By default,
        images whose size TFDS fixes keep it; others get the median of their shorter sides, at most 64.
      memory_limit: in bytes; decoded splits that together need no more are uint8 arrays in memory,
        larger ones are read from disk image by image.

    Returns:
      A `Dataset`; its `summary()` says what was found, and what in a folder was left out.

    Raises:
      DataError: with one line that says what is wrong and how to fix it.
    """
    if image_size is not None and image_size < 1:
        raise DataError(f"image_size must be at least 1, got {image_size}")
    refuse_path(dataset)
    if dataset.startswith("folder:"):
        from jaxcon.data.readers.folder import load_folder

        return load_folder(
            dataset.removeprefix("folder:"), image_size=image_size, memory_limit=memory_limit
        )
    from jaxcon.data.readers.tfds_images import load_tfds

    return load_tfds(dataset, data_dir=data_dir, image_size=image_size, memory_limit=memory_limit)


def refuse_path(dataset: str) -> None:
    """Raises a DataError for a path without `folder:`, and for anything no dataset can be called.

    Example:
      >>> refuse_path("/data/pets")
      Traceback (most recent call last):
      jaxcon.data.splits.DataError: /data/pets is a path; did you mean folder:/data/pets?
    """
    if dataset.startswith("folder:"):
        return
    if almost := re.match(_ALMOST_FOLDER, dataset, re.IGNORECASE):
        meant = f"folder:{dataset[almost.end() :]}"
        raise DataError(f"unknown dataset {cut(dataset)!r}; did you mean {cut(meant)}?")
    if dataset.startswith(("/", "./", "../", "~", "\\")) or re.match(r"[A-Za-z]:[\\/]", dataset):
        raise DataError(f"{cut(dataset)} is a path; did you mean folder:{cut(dataset)}?")
    if not re.fullmatch(r"\w[\w.:/=+,-]*", dataset):
        raise DataError(
            f"unknown dataset {cut(dataset)!r}; expected {', '.join(SHIPPED)}, folder:PATH or a "
            "name of TensorFlow Datasets"
        )
