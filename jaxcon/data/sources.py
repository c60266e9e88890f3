"""`load`: one call for shipped datasets, a folder of images, tar shards, parquet, or a TFDS name.

>>> digits = load("digits")
>>> digits.train.images.shape, digits.train.images.dtype, len(digits.class_names or ())
((1259, 8, 8, 1), dtype('uint8'), 10)
"""

from __future__ import annotations

import os
import re
from typing import get_args

from jaxcon.data.bad_images import BadImages
from jaxcon.data.messages import cut
from jaxcon.data.readers.examples import Wishes
from jaxcon.data.readers.own import KINDS, find, is_own
from jaxcon.data.shipped import SHIPPED
from jaxcon.data.splits import DataError, Dataset, ImageSource, Split

__all__ = ["MEMORY_LIMIT", "DataError", "Dataset", "ImageSource", "Split", "load", "refuse_path"]

MEMORY_LIMIT = 2**30
_PATHS = ("/", "./", "../", "~", "\\", "gs://", "s3://")
# What others call kinds of data of one's own, by how it is spelled here.
_ALMOST = {
    "folder:": r"(\w*folders?|dir|directory|files?|paths?|images?)\s*[:=]",
    "tar:": r"(tars?|tarfiles?|wds|webdataset|shards?)\s*[:=]",
    "parquet:": r"(parquets?|arrow)\s*[:=]",
}


def load(
    dataset: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
    train_share: float | None = None,
    validation_dataset: str | None = None,
    bad_images: BadImages = "error",
) -> Dataset:
    """Loads train, validation and test images, preparing the dataset first where that is needed.

    Which images are test images is a pure function of the data (`splits.split_indices`):

    - `"digits"`: 1259 train, 179 validation, 359 test.
    - `"scenes"`: 10,000 train, 1,000 validation, 1,000 test, without labels.
    - `"folder:PATH"`, `"tar:PATH"`, `"parquet:PATH"` (docs/own_data.md): 70 % train, 10 % validation,
      20 % test of every class, but for splits that the names of folders or files give.
    - a TFDS name: its own test split; if it has none, or one without labels, its validation split is
      used for testing; and if it has neither, 20 % of train. Validation is its own split or 10 % of
      train.

    Args:
      dataset: `"digits"`, `"scenes"`, `"folder:PATH"`, `"tar:PATH"`, `"parquet:PATH"`, or a name of
        TensorFlow Datasets such as `"cifar10"`.
      data_dir: where TFDS prepares datasets; by default `$XDG_CACHE_HOME/jaxcon` or `~/.cache/jaxcon`.
        A folder in an object store, `gs://...` or `s3://...`, is copied there before it is read.
      image_size: side of the square that images are resized and cropped to. By default, 224 for
        photographs, whose shorter sides have a median above 160; small images keep a size that all
        have, or get that median.
      memory_limit: in bytes; decoded splits that together need no more are uint8 arrays in memory,
        larger ones are read from disk image by image. So are training images of other sizes than
        `image_size`: training crops the `originals`.
      train_share: share of every class that is train, where splits are made, in (0, 1); two thirds of
        the rest are test. Only for your own images.
      validation_dataset: more images of your own, for validation and test, in place of held-out ones:
        as their own splits say, or else half each. Then all images of `dataset` are train, but for its
        own other splits.
      bad_images: what to do about images of your own whose header or end shows that they cannot be
        read: `"error"`, or `"skip"` for ten of them, or up to 1 %: those of validation and test are
        left out, those of train keep their number and are replaced when they are read.

    Returns:
      A `Dataset`; its `summary()` says what was found, and what in a folder was left out.

    Raises:
      DataError: with one line that says what is wrong and how to fix it.
    """
    wishes = Wishes(image_size, memory_limit, train_share, bad_images)
    check_wishes(dataset, wishes, validation_dataset)
    if is_own(dataset):
        from jaxcon.data.readers.assembly import image_dataset

        found = find(dataset, captions=False)
        held_out = find(validation_dataset, captions=False) if validation_dataset else None
        return image_dataset(dataset, found, wishes, held_out)
    from jaxcon.data.readers.tfds_images import load_tfds

    return load_tfds(dataset, data_dir=data_dir, image_size=image_size, memory_limit=memory_limit)


def check_wishes(dataset: str, wishes: Wishes, validation_dataset: str | None) -> None:
    """Raises a DataError for what `load` and `load_pairs` cannot do, before anything is read.

    Example:
      >>> check_wishes("digits", Wishes(0, 0), None)
      Traceback (most recent call last):
      jaxcon.data.splits.DataError: image_size must be at least 1, got 0

    Args:
      dataset: as it was asked for.
      wishes: the other arguments.
      validation_dataset: likewise.
    """
    if wishes.image_size is not None and wishes.image_size < 1:
        raise DataError(f"image_size must be at least 1, got {wishes.image_size}")
    if wishes.train_share is not None and not 0 < wishes.train_share < 1:
        raise DataError(f"train_share must lie between 0 and 1, got {wishes.train_share}")
    if wishes.bad_images not in (known := get_args(BadImages)):
        raise DataError(f"bad_images must be {' or '.join(known)}, got {cut(wishes.bad_images)}")
    if validation_dataset == dataset:
        raise DataError(
            f"validation_dataset: {cut(dataset)} is the dataset itself, a test on what was learned; "
            "leave it out, and a part is held out"
        )
    asked = {"train_share": wishes.train_share, "validation_dataset": validation_dataset}
    for source in (dataset, *([validation_dataset] if validation_dataset is not None else [])):
        refuse_path(source)
        name = next((name for name, value in asked.items() if value is not None), None)
        if name and not is_own(source):
            raise DataError(
                f"{name} takes your own images (folder:, tar: or parquet:), got {cut(source)}"
            )


def refuse_path(dataset: str) -> None:
    """Raises a DataError for a path without `folder:`, and for anything no dataset can be called.

    Example:
      >>> refuse_path("/data/pets")
      Traceback (most recent call last):
      jaxcon.data.splits.DataError: /data/pets is a path; did you mean folder:/data/pets?
    """
    if is_own(dataset):
        return
    for kind, spelled in _ALMOST.items():
        if almost := re.match(spelled, dataset, re.IGNORECASE):
            meant = f"{kind}{dataset[almost.end() :]}"
            raise DataError(f"unknown dataset {cut(dataset)!r}; did you mean {cut(meant)}?")
    if dataset.startswith(_PATHS) or re.match(r"[A-Za-z]:[\\/]", dataset):
        kind = next((k for k in KINDS if dataset.lower().endswith(f".{k[:-1]}")), KINDS[0])
        raise DataError(f"{cut(dataset)} is a path; did you mean {kind}{cut(dataset)}?")
    if not re.fullmatch(r"\w[\w.:/=+,-]*", dataset):
        raise DataError(
            f"unknown dataset {cut(dataset)!r}; expected {', '.join(SHIPPED)}, folder:PATH, tar:PATH, "
            "parquet:PATH or a name of TensorFlow Datasets"
        )
