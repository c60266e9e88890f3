"""A dataset of TensorFlow Datasets, found by name and prepared once.

It is prepared as array_record files, which are read by position. Reading needs no TensorFlow; preparing
a dataset from the catalogue for the first time usually does.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from jaxcon.data.messages import cut
from jaxcon.data.readers.cache import copy_missing, default_data_dir, one_process_at_a_time
from jaxcon.data.shipped import SHIPPED, shipped
from jaxcon.data.splits import DataError
from jaxcon.stores import Store, address

# What TFDS needs to prepare a dataset from its catalogue, by import name and by pip name.
_TO_PREPARE = {
    "tensorflow": "tensorflow-cpu",
    "importlib_resources": "importlib_resources",
    "PIL": "pillow",
}
_INFO = "dataset_info.json"  # TFDS writes it last
_DESCRIBE = (".json", ".txt")  # files that say what is in a dataset, not what it is


def prepared_builder(
    name: str, data_dir: str | os.PathLike[str] | None, *, check: Callable[[Any], Any]
) -> Any:
    """Returns the builder that TFDS knows as `name`, after preparing it if needed.

    Args:
      name: name of the dataset.
      data_dir: where TFDS prepares it; None: `default_data_dir()`. For `gs://` and `s3://` it is
        copied below that folder, because records are read by position; if it is not there either, it
        is prepared here and copied there.
      check: raises a DataError for an unsuitable builder, before anything is downloaded.
    """
    url = address(data_dir) if data_dir else None
    if url is not None:
        return _copied_builder(name, Store(url), check)
    root = Path(data_dir).expanduser() if data_dir else default_data_dir()
    builder = _find_builder(name, root)
    check(builder)
    if not builder.data_path.exists():
        with one_process_at_a_time(root, name):
            builder = _find_builder(name, root)
            if not builder.data_path.exists():
                _prepare(builder, name, root)
    return builder


def _copied_builder(name: str, store: Store, check: Callable[[Any], Any]) -> Any:
    """Returns the builder of a dataset in an object store, after copying what is not here yet."""
    root = default_data_dir() / store.url.replace("://", "/")
    dataset = shipped(name).name if name in SHIPPED else re.split("[/:]", name)[0]
    sizes = store.sizes(dataset)
    prepared = {file.rpartition("/")[0] for file in sizes if file.endswith(f"/{_INFO}")}
    sizes = {file: size for file, size in sizes.items() if file.rpartition("/")[0] in prepared}
    with one_process_at_a_time(root, name):
        # First what describes all versions: it says which one is meant.
        described = {file: size for file, size in sizes.items() if file.endswith(_DESCRIBE)}
        copy_missing(store, root, described)
        builder = _find_builder(name, root)
        check(builder)
        version = str(Path(builder.data_path).relative_to(root))
        if version in prepared:
            copy_missing(
                store, root, {f: n for f, n in sizes.items() if f.startswith(f"{version}/")}
            )
            return builder
        if not builder.data_path.exists():
            _prepare(builder, name, root)
        files = sorted(str(f.relative_to(root)) for f in Path(builder.data_path).iterdir())
        store.upload(root, [file for file in files if not file.endswith(f"/{_INFO}")])
        store.upload(root, [f"{version}/{_INFO}"])  # last: only now it counts as prepared
    return builder


def _find_builder(name: str, root: Path) -> Any:
    try:
        if name in SHIPPED:
            return shipped(name)(data_dir=str(root), file_format="array_record")
        return tfds.builder(name, data_dir=str(root), file_format="array_record")
    except tfds.core.DatasetNotFoundError:
        raise _unknown(name) from None
    except ValueError as error:
        if "Parsing builder name string" in str(error):  # the rest is its grammar
            raise _unknown(name) from None
        if "File format is already set" not in str(error):
            raise DataError(f"{cut(name)} cannot be opened: {cut(str(error), 200)}") from error
        raise DataError(
            f"{name} is prepared under {root} in a format that cannot be read by position; name "
            "another data_dir, where it will be prepared as array_record"
        ) from error


def _unknown(name: str) -> DataError:
    known = [*SHIPPED, *tfds.list_builders(with_community_datasets=False)]
    near = difflib.get_close_matches(name.split("/")[0].split(":")[0], known, n=3, cutoff=0.5)
    near = [f"folder:{name}"] if os.path.isdir(name) else near
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return DataError(
        f"unknown dataset {cut(name)!r}{hint} ({', '.join(SHIPPED)}, folder:PATH, tar:PATH, "
        "parquet:PATH or a name of TensorFlow Datasets)"
    )


def _prepare(builder: Any, name: str, root: Path) -> None:
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    # Our own take seconds and download nothing: no reason for three progress bars.
    quiet = name in SHIPPED
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
    """Returns the import that failed: TFDS may report one as a broken archive."""
    while error is not None and not isinstance(error, ImportError):
        error = error.__cause__
    return error


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
