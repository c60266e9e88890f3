"""Any image dataset of TensorFlow Datasets, with its classes if it has any."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from jaxcon.data.pixels import Shape, fit_array
from jaxcon.data.readers.tfds_records import Part, TfdsRecords, fits_in_memory, stored_split
from jaxcon.data.splits import Dataset, Split


def load_tfds(
    name: str, *, data_dir: str | os.PathLike[str] | None, image_size: int | None, memory_limit: int
) -> Dataset:
    """Loads the dataset that TFDS knows as `name`; see `sources.load`."""
    records = TfdsRecords(name, data_dir)
    label = records.label()
    parts, views = records.parts(label), records.views(image_size)
    small = fits_in_memory(parts, views.shape, memory_limit)

    def split(which: str, part: Part) -> Split:
        if views.originals:
            labels = _labels(records, part, label)
            at_once = small and which != "train"
            return stored_split(records, part, views, labels, at_once=at_once)
        read = _read_now if small else _read_later
        return read(records, part, label, views.shape)

    splits = {which: split(which, part) for which, part in parts.items()}
    names = records.features[label].names if label else None
    return Dataset(
        name=name,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        class_names=tuple(names) if names else None,
    )


def _read_now(records: TfdsRecords, part: Part, label: str | None, shape: Shape) -> Split:
    images = np.empty((len(part.positions), *shape), np.uint8)
    labels = np.empty(len(part.positions), np.int32) if label else None
    for row, record in enumerate(records.read(part)):
        images[row] = fit_array(record[records.image], shape)
        if labels is not None:
            labels[row] = record[label]
    return Split(images, labels)


def _read_later(records: TfdsRecords, part: Part, label: str | None, shape: Shape) -> Split:
    return Split(records.on_disk(part, shape), _labels(records, part, label))


def _labels(records: TfdsRecords, part: Part, label: str | None) -> Callable[[], np.ndarray] | None:
    def read_labels() -> np.ndarray:
        return np.array([r[label] for r in records.read(part, without_images=True)], np.int32)

    return read_labels if label else None
