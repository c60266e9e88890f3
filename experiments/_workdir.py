"""The folder of an experiment's run: what is compared and noted before anything in it changes."""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax

import jaxcon
from experiments._common import say
from experiments._ends import unreadable
from jaxcon.data.captions import PairDataset
from jaxcon.data.fingerprint import Fingerprint, changes, fingerprint
from jaxcon.data.messages import listed
from jaxcon.data.preprocessing import preprocessing
from jaxcon.data.splits import Dataset
from jaxcon.encoders.describe import describe
from jaxcon.encoders.tokenizer import Tokenizer
from jaxcon.runs import load_tokenizer
from jaxcon.training.checkpoint import load_newest, state_hash, state_leaves
from jaxcon.training.files import absolute, check_plain, read_json, told
from jaxcon.training.workdir import (
    WRITTEN_BY,
    Workdir,
    check_writable,
    differences,
    open_workdir,
    read_config,
    saved_steps,
)

_VERSION = f"jaxcon {jaxcon.__version__}"
_DATA = "data.json"  # a digest of every image that has a name
_LENGTH = ("epochs", "warmup_epochs")  # what a user changes to train for longer
_HOW_READ = ("experiment", "image_size")  # with another one all images would be others
_TOLD = 8  # differences in a message
_ANOTHER = "go on with the former values, or choose another --workdir"


class Network(NamedTuple):
    """What is trained, as config.json says it.

    Attributes:
        modules: by the name of their variables.
        image_shape: (height, width, channels) of its images.
        tokenizer: of its texts; None without texts.
    """

    modules: Mapping[str, nn.Module]
    image_shape: tuple[int, int, int]
    tokenizer: Tokenizer | None = None


class Start(NamedTuple):
    """Another run whose weights this one starts from.

    Attributes:
        record: for config.json: folder, step and hash of the weights.
        variables: the weights; None where this run has begun, and needs them no more.
        folder: where its tokenizer lies, and the configuration that names it.
        config: of that folder.
    """

    record: dict[str, Any]
    variables: dict[str, Any] | None
    folder: Path
    config: dict[str, Any]


def check_place(path: Path) -> None:
    """Raise a ValueError where no run can be written; that of a finished one may be read-only."""
    with told(absolute(path)):
        finished = Workdir(absolute(path), resumed=True).finished
    if not finished:
        check_plain(absolute(path))
        check_writable(path)


def load_start(run: Path | None, path: Path) -> Start | None:
    """Return the run to start from, or None without one.

    Args:
        run: the folder of `--start-from`.
        path: the folder of this run.

    Raises:
        ValueError: no run lies there, none of its checkpoints is intact, or it is this one.
    """
    if run is None:
        return None
    run, path = absolute(run), absolute(path)
    if run.resolve() == path.resolve():
        raise ValueError(
            f"--start-from={run}: that is the --workdir too; choose another for the new run"
        )
    own = read_config(path) or {}
    record = own.get("start_from")
    begun = saved_steps(path / "checkpoints")
    if begun and isinstance(record, dict) and record.get("run") == str(run):
        return Start(record, None, path, own)
    config = read_config(run, option="--start-from")
    if config is None:
        raise ValueError(f"--start-from={run}: expected the folder of a run, found no config.json")
    step, variables = load_newest(run)
    record = {"run": str(run), "step": step, "weights": state_hash(variables)}
    return Start(record, variables, run, config)


def check_fits(start: Start | None, network: Network, init: Callable[[jax.Array], Any]) -> None:
    """Raise a ValueError where the weights to start from are those of another network.

    Args:
        start: of `load_start`.
        network: what is to be trained.
        init: from a key to its variables.
    """
    if start is None or start.variables is None:
        return
    place = f"--start-from={start.record['run']}: trained another network"
    before = {"model": start.config.get("model", {})}
    if before["model"]:  # an earlier version did not say
        odd = differences(before, {"model": _described(network)})
        odd = {name: said for name, said in odd.items() if not name.endswith(".dtype")}
        if odd:
            if not before["model"].keys() & network.modules.keys():
                raise ValueError(
                    f"{place}: it is a run of experiments.{start.config.get('experiment')}, with "
                    f"{' and '.join(before['model'])} in place of {' and '.join(network.modules)}"
                )
            said = listed(odd.values(), _TOLD)
            raise ValueError(f"{place}: {said}; give it the options of that run")
    wanted = state_leaves(jax.eval_shape(init, jax.random.key(0)))
    found = state_leaves(start.variables)
    for name in sorted(wanted.keys() | found.keys()):
        shapes = [leaves[name].shape if name in leaves else None for leaves in (found, wanted)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{place}: {name} was {shapes[0]}, is {shapes[1]}; give it the options of that run"
            )


def kept_tokenizer(path: Path, start: Start | None, options: Mapping[str, Any]) -> Tokenizer | None:
    """Return the tokenizer that this run was begun with, or that of the run it starts from.

    None where there is neither, or where the former is damaged: then it is learned again, and has to
    turn out the same.

    Args:
        path: of the run's folder.
        start: of `load_start`.
        options: that a tokenizer is learned with.

    Raises:
        ValueError: the other run has none, or learned it with other options.
    """
    own = read_config(path)
    if own is not None and "tokenizer" in own and (start is None or start.variables is None):
        with contextlib.suppress(ValueError):
            return load_tokenizer(absolute(path), own)
    if start is not None:
        if "tokenizer" not in start.config:
            raise ValueError(
                f"--start-from={start.record['run']}: says nothing of its tokenizer: it was "
                "trained on images alone, or by an earlier version of jaxcon"
            )
        odd = differences({name: start.config.get(name) for name in options}, options)
        if odd:
            raise ValueError(
                f"--start-from={start.record['run']}: {', '.join(odd.values())}; its tokens are "
                "kept, so give it the options of that run"
            )
        return load_tokenizer(start.folder, start.config)
    return None


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
    """Return the folder of the run, with everything written down that decides its result.

    Args:
        path: of the folder.
        experiment: the command.
        options: all that were given or filled in, but for where it runs.
        network: what is trained.
        dataset: what on.
        start: of `load_start`.
        needed: bytes of the checkpoints to come.

    Raises:
        ValueError: another configuration, other data, or a folder that cannot be used.
    """
    # Where datasets are prepared decides nothing.
    options = {"experiment": experiment, **options, "start_from": start and start.record}
    options.pop("data_dir", None)
    before = read_config(path)
    now = fingerprint(dataset)
    data = now.summary
    if before is not None:
        if any(before.get(name) != options.get(name) for name in _HOW_READ):
            _same_options(path, before, options)
        if before.get("dataset") == options["dataset"] or _both_folders(before, options):
            # First: options that were left open follow from the number of images.
            _check_data(path, before.get("data"), now)
        options = _same_options(path, before, options)
        if "data" not in before:
            return _open_of_earlier_version(path)
        data = before["data"]
        if (version := before.get(WRITTEN_BY)) != _VERSION:
            say(f"begun by {version}, goes on with {_VERSION}: the last digits may be others")
    files: dict[str, bytes] = {}
    if now.images and data == now.summary:
        files[_DATA] = json.dumps(now.images).encode()
    config: dict[str, Any] = {
        WRITTEN_BY: _VERSION,
        **options,
        "preprocessing": preprocessing(network.image_shape),
        "model": _described(network),
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
    """The options, or a ValueError where they are not those of the run."""
    if _both_folders(before, now):  # what lies there is compared, not where it lies
        now = {**now, "dataset": before["dataset"]}
    old = {name: before.get(name) for name in now if name in before or "data" in before}
    odd = differences(old, {name: now[name] for name in old})
    if odd and set(odd) <= set(_LENGTH) and "epochs" in odd:
        raise ValueError(
            f"{path}: {odd['epochs']}. A run is planned to its end, where its learning rate is 0. To "
            f"go on from its weights, add --start-from={path}: a run of its own, with epochs "
            "counted anew"
        )
    if odd:
        told = [odd["experiment"]] if "experiment" in odd else [*odd.values()]
        more = f" and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
        raise ValueError(
            f"{path}: made with another configuration: {', '.join(told[:_TOLD])}{more}; {_ANOTHER} "
            f"(--start-from={path} begins with its weights)"
        )
    return now


def _both_folders(*configs: Mapping[str, Any]) -> bool:
    return all(str(config.get("dataset")).startswith("folder:") for config in configs)


def _check_data(path: Path, before: Any, now: Fingerprint) -> None:
    """Raise a ValueError where the run was trained on other data than what is at hand."""
    if not isinstance(before, dict) or before == now.summary:
        return  # an earlier version did not say
    said = changes(Fingerprint(before, _images(path)), now, ignore=unreadable(path))
    if said is not None:
        raise ValueError(
            f"{path}: trained on other data: {said}; bring back the data that the run was begun "
            f"with, or choose another --workdir (--start-from={path} begins with its weights)"
        )


def _open_of_earlier_version(path: Path) -> Workdir:
    workdir = Workdir(absolute(path), resumed=True)
    if not workdir.finished:
        raise ValueError(
            f"{path}: begun by an earlier version of jaxcon, which did not record its data and its "
            "network, so nobody can tell whether it would go on alike; choose another --workdir "
            f"(--start-from={path} begins with its weights)"
        )
    say("by an earlier version of jaxcon, which did not record its data: they may have changed")
    return workdir


def _images(path: Path) -> dict[str, dict[str, str]]:
    file = absolute(path) / _DATA
    images = read_json(file, "restore it from a copy") if file.exists() else {}
    if not all(isinstance(names, dict) for names in images.values()):
        raise ValueError(f"{file}: expected digests of images by split; restore it from a copy")
    return images


def _described(network: Network) -> dict[str, Any]:
    return {name: describe(module) for name, module in network.modules.items()}


def _saved(tokenizer: Tokenizer) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder) / "tokenizer.json")
        return (Path(folder) / "tokenizer.json").read_bytes()
