"""Any TFDS dataset whose images have captions, including scenes with their grades and attributes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from jaxcon.data.pixels import Shape, fit_array
from jaxcon.data.readers.tfds_records import Part, TfdsRecords, fits_in_memory, stored_split
from jaxcon.data.splits import DataError, PairDataset, PairSplit, Split

_NAMES = ("captions", "caption", "text", "description")


def load_captioned(
    name: str, *, data_dir: str | os.PathLike[str] | None, image_size: int | None, memory_limit: int
) -> PairDataset:
    """Loads the dataset that TFDS knows as `name`; see `captions.load_pairs`."""
    records = TfdsRecords(name, data_dir)
    key = _caption_key(name, records.features)
    views, parts = records.views(image_size), records.parts(None)
    small = fits_in_memory(parts, views.shape, memory_limit)
    made_up = records.features if name == "scenes" else {}
    splits = {}
    for which, part in parts.items():
        if views.originals:
            rows, kept = _captions_of(records, part, key)
            at_once = small and which != "train"
            split = stored_split(records, kept, views, None, at_once=at_once) if rows else None
        elif small:
            rows, split = _read_now(records, part, key, views.shape)
        else:
            rows, kept = _captions_of(records, part, key)
            split = Split(records.on_disk(kept, views.shape))
        if not rows or split is None:
            raise DataError(
                f"{name}: no image of its split {part.split} has a caption; choose another dataset"
            )
        splits[which] = _pair_split(split, rows, made_up)
    return PairDataset(name=name, classes=_classes(made_up), **splits)


class _Row(NamedTuple):
    captions: tuple[str, ...]
    record: Mapping[str, Any]


def _caption_key(name: str, features: Mapping[str, Any]) -> str:
    keys = [key for key in features if _is_text(features[key])]
    for key in _NAMES:
        if key in keys:
            return key
    raise DataError(
        f"{name} has no captions: of its features {', '.join(features)}, none is a "
        f"text named {', '.join(_NAMES[:-1])} or {_NAMES[-1]}; choose another dataset, or "
        "write its captions into a table (folder:PATH)"
    )


def _is_text(feature: Any) -> bool:
    """Returns whether it is a text, a sequence of texts, or of records with the field `text`."""
    if isinstance(feature, tfds.features.Sequence):
        feature = feature.feature
        if isinstance(feature, tfds.features.FeaturesDict):
            return "text" in feature and _is_text(feature["text"])
    return isinstance(feature, tfds.features.Text)


def _read_now(records: TfdsRecords, part: Part, key: str, shape: Shape) -> tuple[list[_Row], Split]:
    """Reads captions and images in one pass over the records."""
    rows, images = [], []
    for record in records.read(part):
        row = _row(record, key, records.image)
        if row.captions:
            rows.append(row)
            images.append(fit_array(record[records.image], shape))
    return rows, Split(np.stack(images) if images else np.empty((0, *shape), np.uint8))


def _captions_of(records: TfdsRecords, part: Part, key: str) -> tuple[list[_Row], Part]:
    """Reads captions, leaving images undecoded; returns those of images that have any, and these."""
    read = [_row(record, key, records.image) for record in records.read(part, without_images=True)]
    kept = np.array([bool(row.captions) for row in read], bool)
    positions = part.positions[kept]
    return [row for row in read if row.captions], part._replace(positions=positions)


def _row(record: Mapping[str, Any], key: str, image: str) -> _Row:
    value = record[key]
    value = value["text"] if isinstance(value, Mapping) else value
    values = [value] if isinstance(value, bytes | str) else list(value)
    texts = (v.decode() if isinstance(v, bytes) else str(v) for v in values)
    captions = tuple(text.strip() for text in texts if text.strip())
    return _Row(captions, {k: v for k, v in record.items() if k != image})


def _classes(made_up: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    if not made_up:
        return {}
    return {name: tuple(f.names) for name, f in made_up["objects"].feature.items()}


def _pair_split(images: Split, rows: list[_Row], made_up: Mapping[str, Any]) -> PairSplit:
    captions = tuple(row.captions for row in rows)
    if not made_up:
        return PairSplit(images, captions)
    objects = [row.record["objects"] for row in rows]
    return PairSplit(
        images,
        captions,
        grades=tuple(tuple(int(g) for g in row.record["captions"]["grade"]) for row in rows),
        attributes={
            name: np.array([v[name][0] if len(v[name]) == 1 else -1 for v in objects], np.int32)
            for name in _classes(made_up)
        },
        counts=np.array([len(v["shape"]) for v in objects], np.int32),
    )
