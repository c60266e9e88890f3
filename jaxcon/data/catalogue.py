"""Any image dataset of TensorFlow Datasets, read without TensorFlow.

Data is prepared once as array_record files, which are read by position. Reading needs no
TensorFlow; preparing a dataset of the catalogue for the first time usually does.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxcon.data.messages import cut, shown
from jaxcon.data.pixels import Shape, default_side, fit_array
from jaxcon.data.splits import (
    TEST_SHARE,
    VALIDATION_SHARE,
    DataError,
    Dataset,
    Split,
    split_indices,
)

# What TFDS needs to prepare a dataset of its catalogue, by import name and by pip name.
_TO_PREPARE = {
    "tensorflow": "tensorflow-cpu",
    "importlib_resources": "importlib_resources",
    "PIL": "pillow",
}

_OURS = ("digits", "scenes")
_AT_A_TIME = 512  # records
_SAMPLE = 50  # images whose sizes are looked at

# TFDS warns that OpenCV would decode faster, once in every worker; pillow is what we install.
logging.getLogger("absl").addFilter(
    lambda record: not record.getMessage().startswith("OpenCV is not installed")
)


def default_data_dir() -> Path:
    """`$XDG_CACHE_HOME/jaxcon`, or `~/.cache/jaxcon`.

    Raises:
      DataError: if the account has no home folder, as in many a container.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxcon"
    except RuntimeError:
        raise DataError(
            "there is no home folder to prepare datasets in; set HOME or XDG_CACHE_HOME, or name a "
            "folder (--data-dir)"
        ) from None


def load_tfds(
    name: str, *, data_dir: str | os.PathLike[str] | None, image_size: int | None, memory_limit: int
) -> Dataset:
    """Loads the dataset that TFDS knows as `name`; see `sources.load`."""
    root = Path(data_dir).expanduser() if data_dir else default_data_dir()
    builder = _prepared_builder(name, root)
    label = _label_key(builder)
    splits = _read(builder, _parts(builder, label), image_size, memory_limit)
    names = builder.info.features[label].names if label else None
    return Dataset(
        name=name,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        class_names=tuple(names) if names else None,
    )


def _prepared_builder(name: str, root: Path) -> Any:
    builder = _find_builder(name, root)
    _image_key(builder)  # refused before anything is downloaded
    if not builder.data_path.exists():
        with _one_process_at_a_time(root, name):
            builder = _find_builder(name, root)
            if not builder.data_path.exists():
                _prepare(builder, name, root)
    return builder


def _find_builder(name: str, root: Path) -> Any:
    from jaxcon.data.digits import JaxconDigits
    from jaxcon.data.scenes import JaxconScenes

    try:
        if name in _OURS:
            ours = JaxconDigits if name == "digits" else JaxconScenes
            return ours(data_dir=str(root), file_format="array_record")
        return tfds.builder(name, data_dir=str(root), file_format="array_record")
    except tfds.core.DatasetNotFoundError:
        raise _unknown(name) from None
    except ValueError as error:
        if "Parsing builder name string" in str(error):  # it goes on with its grammar
            raise _unknown(name) from None
        if "File format is already set" not in str(error):
            raise DataError(f"{cut(name)} cannot be opened: {cut(str(error), 200)}") from error
        raise DataError(
            f"{name} is prepared under {root} in a format that cannot be read by position; name "
            "another data_dir, where it will be prepared as array_record"
        ) from error


def _unknown(name: str) -> DataError:
    known = [*_OURS, *tfds.list_builders(with_community_datasets=False)]
    near = difflib.get_close_matches(name.split("/")[0].split(":")[0], known, n=3, cutoff=0.5)
    near = [f"folder:{name}"] if os.path.isdir(name) else near
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return DataError(
        f"unknown dataset {cut(name)!r}{hint} (digits, scenes, folder:PATH or a name of TensorFlow "
        "Datasets)"
    )


def _prepare(builder: Any, name: str, root: Path) -> None:
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    # Our own take seconds and download nothing: no reason for three progress bars.
    quiet = name in _OURS
    sink = io.StringIO()
    try:
        with contextlib.ExitStack() as stack:
            if quiet:
                stack.enter_context(contextlib.redirect_stdout(sink))
                stack.enter_context(contextlib.redirect_stderr(sink))
            builder.download_and_prepare(download_config=config, file_format="array_record")
    except Exception as error:
        if (cause := _import_error(error)) is not None:
            missing = [pip for module, pip in _TO_PREPARE.items() if not _installed(module)]
            raise DataError(
                f"{name} has to be prepared once, and TensorFlow Datasets cannot do it here: "
                f"{cause}. Run: pip install {' '.join(missing or list(_TO_PREPARE.values()))} "
                "(once it is prepared, reading it needs no TensorFlow)"
            ) from error
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"{name} could not be prepared under {root}: {type(error).__name__}: {reason}"
        ) from error


def _import_error(error: BaseException | None) -> ImportError | None:
    """The import that failed: TFDS reports one while unpacking an archive as a broken archive."""
    while error is not None and not isinstance(error, ImportError):
        error = error.__cause__
    return error


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


@contextlib.contextmanager
def _one_process_at_a_time(root: Path, name: str) -> Iterator[None]:
    """Others wait: TFDS would fail where a second process publishes the same folder.

    The lock is the kernel's, so it goes with its process however that ends. A file system without
    locks leaves two processes to TFDS.
    """
    import fcntl

    lock = root / f".{name.replace('/', '-')}.lock"
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError as error:
        raise DataError(
            f"cannot write to the data folder {shown(root)} ({error.strerror}); name another as "
            "data_dir"
        ) from error
    with lock.open("w", encoding="utf-8") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _image_key(builder: Any) -> str:
    features = builder.info.features
    keys = [key for key, value in features.items() if isinstance(value, tfds.features.Image)]
    if not keys:
        raise DataError(
            f"{builder.info.name} has no images: its features are {', '.join(features)}; "
            "choose an image dataset"
        )
    return "image" if "image" in keys else keys[0]


def _label_key(builder: Any) -> str | None:
    features = builder.info.features
    keys = [key for key, value in features.items() if isinstance(value, tfds.features.ClassLabel)]
    supervised = builder.info.supervised_keys
    for key in ("label", supervised[1] if supervised else None, *keys):
        if key in keys:
            return key
    return None


def _source(builder: Any, split: str, *, skip: str | None = None) -> Any:
    """Random access to the records of one TFDS split; the feature `skip` stays undecoded."""
    decoders = {skip: tfds.decode.SkipDecoding()} if skip else None
    return builder.as_data_source(split, decoders=decoders)


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


def _parts(builder: Any, label: str | None) -> dict[str, tuple[str, np.ndarray]]:
    """Our three parts as (TFDS split, positions in it); `sources.load` states the rule."""
    sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
    if "train" not in sizes:
        raise DataError(
            f"{builder.info.full_name} has no split named train (it has {', '.join(sizes)}); "
            "choose another dataset"
        )
    held_out = [name for name in ("test", "validation") if sizes.get(name)]
    if label and "test" in held_out and _source(builder, "test")[0][label] < 0:
        held_out.remove("test")  # a competition's test split, without answers
    carved = split_indices(
        [str(position) for position in range(sizes["train"])],
        test_share=0.0 if held_out else TEST_SHARE,
        validation_share=0.0 if len(held_out) == 2 else VALIDATION_SHARE,
    )
    parts = {name: ("train", positions) for name, positions in carved.items()}
    for part, split in zip(("test", "validation"), held_out, strict=False):
        parts[part] = (split, np.arange(sizes[split]))
    return parts


def _read(
    builder: Any,
    parts: dict[str, tuple[str, np.ndarray]],
    image_size: int | None,
    memory_limit: int,
) -> dict[str, Split]:
    image, label = _image_key(builder), _label_key(builder)
    shape = _image_shape(builder, image_size)
    read = _read_now if _in_memory(parts, shape, memory_limit) else _read_later
    return {
        part: read(builder, split, positions, image, label, shape)
        for part, (split, positions) in parts.items()
    }


def _image_shape(builder: Any, image_size: int | None) -> Shape:
    """What every image is brought to; see `sources.load` on `image_size`."""
    image = _image_key(builder)
    height, width, channels = builder.info.features[image].shape
    if image_size is None and None in (height, width):
        count = builder.info.splits["train"].num_examples
        some = np.unique(np.linspace(0, count - 1, _SAMPLE, dtype=np.int64))
        records = _records(_source(builder, "train"), some)
        image_size = default_side(record[image].shape[:2] for record in records)
    return (height, width, channels) if image_size is None else (image_size, image_size, channels)


def _in_memory(parts: dict[str, tuple[str, np.ndarray]], shape: Shape, memory_limit: int) -> bool:
    count = sum(len(positions) for _, positions in parts.values())
    return count * int(np.prod(shape)) <= memory_limit


def _records(source: Any, positions: np.ndarray) -> Iterator[Any]:
    """The records in order, read many at a time: faster than one by one."""
    for start in range(0, len(positions), _AT_A_TIME):
        yield from source.__getitems__(positions[start : start + _AT_A_TIME].tolist())


def _read_now(
    builder: Any, split: str, positions: np.ndarray, image: str, label: str | None, shape: Shape
) -> Split:
    images = np.empty((len(positions), *shape), np.uint8)
    labels = np.empty(len(positions), np.int32) if label else None
    for row, record in enumerate(_records(_source(builder, split), positions)):
        images[row] = fit_array(record[image], shape)
        if labels is not None:
            labels[row] = record[label]
    return Split(images, labels)


def _read_later(
    builder: Any, split: str, positions: np.ndarray, image: str, label: str | None, shape: Shape
) -> Split:
    def read_labels() -> np.ndarray:
        records = _records(_source(builder, split, skip=image), positions)
        return np.array([record[label] for record in records], np.int32)

    images = TfdsImages(_source(builder, split), image, positions, shape)
    return Split(images, read_labels if label else None)
