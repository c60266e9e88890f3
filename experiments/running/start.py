"""The run that another one starts from: its weights, whether they fit, and its tokenizer."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from experiments.running.own import describe_module
from jaxcon.data.messages import listed
from jaxcon.encoders.tokenizer import Tokenizer
from jaxcon.runs import load_tokenizer
from jaxcon.stores import address, local, named
from jaxcon.training.checkpoint import load_newest
from jaxcon.training.digests import state_hash, state_leaves
from jaxcon.training.files import absolute
from jaxcon.training.workdir import differences, read_config, saved_steps

TOLD = 8  # differences in a message


class Network(NamedTuple):
    """What is trained, as config.json describes it.

    Attributes:
      modules: networks by the name of their variables.
      image_shape: (height, width, channels) of its images.
      tokenizer: tokenizer of its texts; None without texts.
    """

    modules: Mapping[str, nn.Module]
    image_shape: tuple[int, int, int]
    tokenizer: Tokenizer | None = None


class Start(NamedTuple):
    """Another run whose weights this one starts from.

    Attributes:
      record: folder, step and hash of the weights, for config.json.
      variables: the weights; None if this run has begun, and no longer needs them.
      folder: where its tokenizer lies, and the configuration that names it.
      config: the configuration in that folder.
    """

    record: dict[str, Any]
    variables: dict[str, Any] | None
    folder: Path
    config: dict[str, Any]


def load_start(run: Path | None, path: Path) -> Start | None:
    """Returns the run to start from, or None without one.

    Args:
      run: the folder of `--start-from`.
      path: the folder of this run.

    Raises:
      ValueError: if there is no run, none of its checkpoints is intact, or it is this one.
    """
    if run is None:
        return None
    path, place = absolute(path), address(run) or str(absolute(run))
    if place == named(str(path)) or Path(place).resolve() == path.resolve():
        raise ValueError(
            f"--start-from={place}: that is also the --workdir; choose another for the new run"
        )
    own = read_config(path) or {}
    record = own.get("start_from")
    begun = saved_steps(path / "checkpoints")
    if begun and isinstance(record, dict) and record.get("run") == place:
        return Start(record, None, path, own)
    run = absolute(local(run))
    config = read_config(run, option="--start-from")
    if config is None:
        raise ValueError(f"--start-from={run}: expected the folder of a run, found no config.json")
    step, variables = load_newest(run)
    record = {"run": place, "step": step, "weights": state_hash(variables)}
    return Start(record, variables, run, config)


def check_fits(start: Start | None, network: Network, init: Callable[[jax.Array], Any]) -> None:
    """Raises a ValueError if the weights to start from belong to another network.

    Args:
      start: from `load_start`.
      network: what is to be trained.
      init: maps a key to its variables.
    """
    if start is None or start.variables is None:
        return
    place = f"--start-from={start.record['run']}: trained another network"
    before = {"model": start.config.get("model", {})}
    if before["model"]:  # an earlier version did not say
        odd = differences(before, {"model": describe_network(network)})
        odd = {name: said for name, said in odd.items() if not name.endswith(".dtype")}
        if odd:
            if not before["model"].keys() & network.modules.keys():
                raise ValueError(
                    f"{place}: it is a run of experiments.{start.config.get('experiment')}, with "
                    f"{' and '.join(before['model'])} instead of {' and '.join(network.modules)}"
                )
            said = listed(odd.values(), TOLD)
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
    """Returns the tokenizer that this run began with, or that of the run it starts from.

    Returns None if there is neither, or if the former is damaged: then it is learned again, and must
    turn out the same.

    Args:
      path: path of the run's folder.
      start: from `load_start`.
      options: the options for learning a tokenizer.

    Raises:
      ValueError: if the other run has none, or learned it with other options.
    """
    own = read_config(path)
    if own is not None and "tokenizer" in own and (start is None or start.variables is None):
        with contextlib.suppress(ValueError):
            return load_tokenizer(absolute(path), own)
    if start is not None:
        if "tokenizer" not in start.config:
            raise ValueError(
                f"--start-from={start.record['run']}: has no record of a tokenizer: it was "
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


def describe_network(network: Network) -> dict[str, Any]:
    """Returns the networks by the names of their variables, as config.json describes them."""
    return {name: describe_module(module) for name, module in network.modules.items()}
