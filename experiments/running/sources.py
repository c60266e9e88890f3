"""Where an experiment's images come from and how they are read: options, and what follows from them."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from experiments.running.options import (
    FloatOfLoss,
    Machine,
    OptionalFloat,
    OptionalInt,
    OptionalName,
    OptionalPath,
    check_range,
    fill,
)
from jaxcon.data.crops import Crops
from jaxcon.data.reading import default_workers
from jaxcon.data.skipped import SkippedLog
from jaxcon.data.splits import PairSplit, Split


@dataclasses.dataclass(frozen=True)
class Source:
    """Which images, of what size, and how they are divided."""

    dataset: str = ""
    """Where the images come from."""
    data_dir: OptionalPath = None
    """Where datasets are prepared, also gs://BUCKET/FOLDER or s3://BUCKET/FOLDER. Default: the user's
    cache folder."""
    validation_dataset: OptionalName = None
    """More images of your own, for validation and test, in place of some that are held out. Default:
    a tenth and a fifth are held out, where the dataset has no splits of its own."""
    train_share: OptionalFloat = None
    """Share of your own images to learn from, between 0 and 1; of the rest a third is for validation
    and two thirds for the test."""
    image_size: OptionalInt = None
    """Side of the images that the encoder sees. Default: 224 for photographs, whose shorter sides have
    a median above 160; smaller images keep a size that all have, or get that median."""
    crop_scale: FloatOfLoss = None
    """Least share of a photograph that a training crop shows; the greatest is all of it. Default:
    0.08, with captions 0.9."""


def check_source(source: Source) -> None:
    """Raises a ValueError for the first option that is out of range."""
    check_range(source, "image_size", low=0)
    check_range(source, "train_share", low=0, high=1)
    if source.crop_scale is not None and not 0 < source.crop_scale <= 1:
        raise ValueError(
            f"--crop-scale={source.crop_scale}: expected a share above 0 and at most 1"
        )


def load_arguments(source: Source, machine: Machine) -> dict[str, Any]:
    """Returns what `jaxcon.data.sources.load` and `load_pairs` take beside the dataset's name."""
    return {
        "data_dir": source.data_dir,
        "image_size": source.image_size,
        "train_share": source.train_share,
        "validation_dataset": source.validation_dataset,
        "bad_images": machine.bad_images,
    }


def images_of(split: Split | PairSplit) -> Split:
    """Returns the images of a split, with labels or captions."""
    return split.images if isinstance(split, PairSplit) else split


def fill_crop_scale(config: Any, split: Split, least: float) -> Any:
    """Returns a configuration whose first group, a `Source`, says how photographs are cropped.

    Args:
      config: the options.
      split: the training images.
      least: least share of a photograph in a crop, unless the options say otherwise.

    Raises:
      ValueError: if a share is asked for, and there is nothing to crop.
    """
    field = dataclasses.fields(config)[0].name
    source: Source = getattr(config, field)
    if split.originals is not None:
        return dataclasses.replace(config, **{field: fill(source, crop_scale=least)})
    if source.crop_scale is not None:
        raise ValueError(
            f"--crop-scale={source.crop_scale}: the images of {source.dataset} are small and of "
            "one size, and their crops are part of the recipe; leave it out"
        )
    return config


def crops_of(split: Split, source: Source, *, views: int, flip: bool) -> Crops | None:
    """Returns how photographs are cropped where they are read; None for images that come whole.

    Args:
      split: the training images.
      source: the options, after `fill_crop_scale`.
      views: views of an image in a step.
      flip: whether half of the crops are mirrored.
    """
    if split.originals is None:
        return None
    assert source.crop_scale is not None
    return Crops(split.image_shape[0], views=views, area=(source.crop_scale, 1.0), flip=flip)


def reading(machine: Machine, split: Split, path: Path) -> dict[str, Any]:
    """Returns how training reads the images that are not in memory, for `jaxcon.data.batching`.

    Args:
      machine: the options.
      split: the training images.
      path: the run's folder, where images that were skipped are listed.
    """
    if split.in_memory and split.originals is None:
        return {}
    workers = default_workers() if machine.data_workers is None else machine.data_workers
    skips = machine.bad_images == "skip"
    return {
        "num_workers": workers,
        "bad_images": machine.bad_images,
        "on_bad": SkippedLog(path, jax.process_index()) if skips else None,
    }
