"""The folder of an experiment's run: what is compared and recorded before anything in it changes."""

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jaxcon
from experiments.running.ends import unreadable
from experiments.running.options import Machine
from experiments.running.process import say
from experiments.running.sources import images_of
from experiments.running.start import TOLD, Network, Start, describe_network
from jaxcon.data.captions import PairDataset
from jaxcon.data.fingerprint import Fingerprint, changes, fingerprint
from jaxcon.data.preprocessing import preprocessing
from jaxcon.data.readers.own import is_own
from jaxcon.data.splits import Dataset
from jaxcon.encoders.tokenizer import Tokenizer
from jaxcon.stores import address
from jaxcon.training.files import absolute, check_plain, read_json, told
from jaxcon.training.workdir import (
    WRITTEN_BY,
    Workdir,
    check_writable,
    differences,
    open_workdir,
    read_config,
)

_VERSION = f"jaxcon {jaxcon.__version__}"
_DATA = "data.json"  # a digest of every image that has a name
_LENGTH = ("epochs", "warmup_epochs")  # what a user changes to train for longer
_HOW_READ = ("experiment", "image_size", "train_share")  # another value changes all images
# What runs did before they recorded an option.
_BEFORE = {"loss_precision": "highest", "text_encoder": "small"}
_ANOTHER = "use the former values, or choose another --workdir"


def check_place(path: Path) -> None:
    """Raises a ValueError if no run can be written there; a finished one may be read-only."""
    with told(absolute(path)):
        finished = Workdir(absolute(path), resumed=True).finished
    if not finished:
        check_plain(absolute(path))
        check_writable(path)


def open_run(
    path: Path,
    *,
    experiment: str,
    options: Mapping[str, Any],
    network: Network,
    dataset: Dataset | PairDataset,
    start: Start | None = None,
    needed: int = 0,
) -> Workdir:
    """Returns the folder of the run, with everything recorded that decides its result.

    Args:
      path: path of the folder.
      experiment: the command.
      options: all that were given or filled in, except where it runs.
      network: what is trained.
      dataset: what it is trained on.
      start: from `load_start`.
      needed: bytes that the coming checkpoints need.

    Raises:
      ValueError: if the configuration or the data differ, or the folder cannot be used.
    """
    # Where datasets are prepared decides nothing.
    options = {"experiment": experiment, **options, "start_from": start and start.record}
    options.pop("data_dir", None)
    before = read_config(path)
    now = fingerprint(dataset)
    data = now.summary
    if before is not None:
        if "crop_scale" not in before and images_of(dataset.train).originals is not None:
            return _open_of_earlier_version(path, "cropped images at another size than this one")
        if any(before.get(name) != options.get(name) for name in _HOW_READ):
            # The share of a crop follows from it, where it was left open.
            _same_options(path, before, {**options, "crop_scale": before.get("crop_scale")})
        was, named = before.get("dataset"), options["dataset"]
        if was == named or _both_own(was, named):
            # First: options that were left open follow from the number of images.
            _check_data(path, before.get("data"), now)
        options = _same_options(path, before, options)
        if "data" not in before:
            return _open_of_earlier_version(path, "did not record its data and its network")
        data = before["data"]
        if (version := before.get(WRITTEN_BY)) != _VERSION:
            say(f"begun with {version}, resumed with {_VERSION}: the last digits may differ")
    files: dict[str, bytes] = {}
    if now.images and data == now.summary:
        files[_DATA] = json.dumps(now.images).encode()
    config: dict[str, Any] = {
        WRITTEN_BY: _VERSION,
        **options,
        "preprocessing": preprocessing(network.image_shape, images_of(dataset.train).zoom),
        "model": describe_network(network),
    }
    if network.tokenizer is not None:
        files["tokenizer.json"] = content = _saved(network.tokenizer)
        config["tokenizer"] = {
            "vocabulary": network.tokenizer.vocabulary,
            "length": network.tokenizer.length,
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    workdir = open_workdir(path, {**config, "data": data}, files=files, needed=needed)
    if start is not None and start.variables is not None:
        say(f"starts from the weights of {start.record['run']}, step {start.record['step']}")
    return workdir


def _same_options(path: Path, before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Returns the options; raises a ValueError if they are not those of the run."""
    for name in ("dataset", "validation_dataset"):
        if _both_own(before.get(name), now.get(name)):  # what lies there is compared, not where
            now = {**now, name: before[name]}
    unrecorded = {name: value for name, value in _BEFORE.items() if name not in before}
    did = {name: value for name, value in unrecorded.items() if now.get(name)} | before
    old = {name: did.get(name) for name in now if name in did or "data" in before}
    odd = differences(old, {name: now[name] for name in old})
    if odd and set(odd) <= set(_LENGTH) and "epochs" in odd:
        raise ValueError(
            f"{path}: {odd['epochs']}. A run is planned to its end, where its learning rate is 0. To "
            f"train on from its weights, add --start-from={path}: a new run, with epochs "
            "counted from 0"
        )
    if odd:
        told = [odd["experiment"]] if "experiment" in odd else [*odd.values()]
        more = f" and {len(told) - TOLD} more" if len(told) > TOLD else ""
        raise ValueError(
            f"{path}: made with another configuration: {', '.join(told[:TOLD])}{more}; {_ANOTHER} "
            f"(--start-from={path} starts from its weights)"
        )
    return {name: value for name, value in now.items() if name not in unrecorded}


def _both_own(before: Any, now: Any) -> bool:
    """Returns whether two names of datasets are of the user's own, and of one kind."""
    one, other = str(before), str(now)
    return is_own(one) and is_own(other) and one.partition(":")[0] == other.partition(":")[0]


def _check_data(path: Path, before: Any, now: Fingerprint) -> None:
    """Raises a ValueError if the run was trained on other data than what is at hand."""
    if not isinstance(before, dict) or before == now.summary:
        return  # an earlier version did not say
    said = changes(Fingerprint(before, _images(path)), now, ignore=unreadable(path))
    if said is not None:
        raise ValueError(
            f"{path}: trained on other data: {said}; bring back the data that the run began "
            f"with, or choose another --workdir (--start-from={path} starts from its weights)"
        )


def _open_of_earlier_version(path: Path, did: str) -> Workdir:
    """Returns the folder of a finished run; raises a ValueError for one that would go on otherwise."""
    workdir = Workdir(absolute(path), resumed=True)
    if not workdir.finished:
        raise ValueError(
            f"{path}: begun by an earlier version of jaxcon, which {did}, so nobody can tell "
            "whether it would continue alike; choose another --workdir "
            f"(--start-from={path} starts from its weights)"
        )
    say(f"made by an earlier version of jaxcon, which {did}: its data may have changed")
    return workdir


def _images(path: Path) -> dict[str, dict[str, str]]:
    file = absolute(path) / _DATA
    images = read_json(file, "restore it from a copy") if file.exists() else {}
    if not all(isinstance(names, dict) for names in images.values()):
        raise ValueError(f"{file}: expected digests of images by split; restore it from a copy")
    return images


def _saved(tokenizer: Tokenizer) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder) / "tokenizer.json")
        return (Path(folder) / "tokenizer.json").read_bytes()


_LONGEST_NAME = 100  # bytes of a run's folder


def workdir_path(
    machine: Machine, experiment: str, dataset: str, start_from: Path | None = None
) -> Path:
    """Returns the folder requested, or `runs/EXPERIMENT-DATASET` and the run it starts from.

    Example:
      >>> print(workdir_path(Machine(), "simclr", "folder:/data/my birds/"))
      runs/simclr-folder-data-my-birds
      >>> print(workdir_path(Machine(), "simclr", "digits", Path("runs/simclr-digits")))
      runs/simclr-digits-from-simclr-digits
    """
    after = f"-from-{Path(address(start_from) or absolute(start_from)).name}" if start_from else ""
    name = "-".join(re.findall(r"[\w.]+", f"{experiment}-{dataset}"))
    return machine.workdir or Path("runs") / _file_name(f"{name}{after}")


def _file_name(text: str) -> str:
    """Returns a text as a folder name; of a long one the start, and a digest of the whole.

    File systems allow 255 bytes, encrypted ones 143.

    Example:
      >>> len(_file_name("ä" * 1000)) < 100, _file_name("ä" * 1000) == _file_name("ä" * 1001)
      (True, False)
    """
    if len(text.encode()) <= _LONGEST_NAME:
        return text
    start = text.encode()[: _LONGEST_NAME - 9].decode(errors="ignore")
    return f"{start}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
