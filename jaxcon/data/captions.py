"""`load_pairs`: images with captions, from the scenes we ship, a user's folder, or a TFDS name.

>>> load_pairs("/data/birds")
Traceback (most recent call last):
jaxcon.data.splits.DataError: /data/birds is a path; did you mean folder:/data/birds?
"""

from __future__ import annotations

import os

from jaxcon.data.sources import MEMORY_LIMIT, refuse_path
from jaxcon.data.splits import DataError, PairDataset, PairSplit

__all__ = ["PairDataset", "PairSplit", "load_pairs"]


def load_pairs(
    dataset: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> PairDataset:
    """Loads images with captions; splits and the other arguments are those of `sources.load`.

    - `"scenes"`: pictures made up by `jaxcon.data.shipped.scenes`, with grades and attributes.
    - `"folder:PATH"`: a table (`jaxcon.data.readers.table`), or a folder with one; all captions of an
      image are in one split. Folders `train`, `validation` and `test` above the images are kept.
    - a TFDS name with captions, such as `"coco_captions"`; images without any are left out.

    Raises:
      DataError: with one line that says what is wrong, in which row, and how to mend it.
    """
    if image_size is not None and image_size < 1:
        raise DataError(f"image_size must be at least 1, got {image_size}")
    refuse_path(dataset)
    if dataset.startswith("folder:"):
        from jaxcon.data.readers.captioned_folder import load_captioned_folder

        return load_captioned_folder(dataset, image_size=image_size, memory_limit=memory_limit)
    from jaxcon.data.readers.tfds_captions import load_captioned

    return load_captioned(
        dataset, data_dir=data_dir, image_size=image_size, memory_limit=memory_limit
    )
