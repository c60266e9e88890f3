"""The trained encoder of a run, rebuilt from the run's folder in one call.

import jaxcon

run = jaxcon.load_run("runs/simclr-digits")
features = run.embed_images(["a.png", "b.png"])     # float32 [2, dim], rows of norm 1

run = jaxcon.load_run("runs/clip-scenes")
scores = run.embed_images(images) @ run.embed_texts(["a red circle", "a blue star"]).T
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxcon.data.messages import cut, is_utf_8
from jaxcon.data.preprocessing import image_shape, prepare
from jaxcon.encoders.describe import build
from jaxcon.encoders.dual import Embedded
from jaxcon.encoders.tokenizer import Tokenizer
from jaxcon.similarity import l2_normalize
from jaxcon.stores import address, reading
from jaxcon.training.checkpoint import load_newest
from jaxcon.training.digests import state_leaves
from jaxcon.training.files import absolute
from jaxcon.training.workdir import read_config

_BATCH = 64
_RECORDED = ("model", "preprocessing")


class TrainedRun:
    """What a run has learned, ready for use; made by `load_run`.

    Attributes:
      folder: the run's folder, or its address in an object store.
      step: the step of the checkpoint that was loaded, the newest intact one.
      config: the contents of config.json.
      image_shape: (height, width, channels) to which images are brought.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        step: int,
        variables: dict[str, Any],
        networks: Mapping[str, nn.Module],
    ):
        self.folder: Path | str = folder
        self.config, self.step = config, step
        self.image_shape = image_shape(config["preprocessing"])
        shapes = jax.ShapeDtypeStruct((1, *self.image_shape), np.float32)
        # A dual encoder has two sides; of a model of views only the encoder is kept, not its head.
        name = "image" if "image" in config["model"] else "encoder"
        self._images = _Network(folder, config, name, variables, shapes, networks)
        self._tokenizer, self._texts = None, None
        if "text" in config["model"]:
            self._tokenizer = load_tokenizer(folder, config)
            tokens = jax.ShapeDtypeStruct((1, self._tokenizer.length), np.int32)
            self._texts = _Network(folder, config, "text", variables, tokens, networks)

    def __repr__(self) -> str:
        what = f"{self.config.get('experiment')} on {self.config.get('dataset')}"
        return f"TrainedRun({str(self.folder)!r}: {what}, step {self.step})"

    def embed_images(self, images: Any, *, normalize: bool = True) -> np.ndarray:
        """Embeds images, in batches, after the preprocessing that the run was trained with.

        For a run of `experiments.simclr` or `barlow_twins` these are the encoder's features, before
        the projection head; for one of `experiments.clip`, the embeddings that texts are compared to.

        Args:
          images: an array `[n, height, width, channels]`, or several files, Pillow images or arrays:
            a list, an array of paths, or what `Path.glob` returns; see
            `jaxcon.data.preprocessing.prepare`.
          normalize: whether to scale rows to norm 1.

        Returns:
          float32 `[n, dim]`.

        Raises:
          ValueError: if given one image instead of several, or no images.
          DataError: if an image cannot be read or understood; names its position or its file.
        """
        settings = self.config["preprocessing"]
        return self._images.embed(
            _several_images(images),
            lambda rows, first: prepare(rows, settings, first=first),
            normalize,
        )

    def embed_texts(self, texts: Iterable[str], *, normalize: bool = True) -> np.ndarray:
        """Embeds texts, in batches, with the run's tokenizer.

        Args:
          texts: any texts; those with more tokens than the run's context length lose their end, with
            a warning.
          normalize: whether to scale rows to norm 1.

        Returns:
          float32 `[n, dim]`, with the dim of `embed_images`.

        Raises:
          ValueError: if the run was trained on images alone, or these are not texts.
        """
        if self._texts is None or self._tokenizer is None:
            raise ValueError(
                f"{self.folder}: trained by {self.config.get('experiment')} on images alone, so it "
                "has no text encoder; experiments.clip trains one"
            )
        texts = _several_texts(texts)
        encode = self._tokenizer.encode
        return self._texts.embed(texts, lambda rows, _: encode(rows), normalize)


# Iterable, yet without ordered rows.
_NO_LIST = str | bytes | Mapping | set | frozenset


def _several_images(images: Any) -> Any:
    """Returns something that can be sliced: an array of four axes, or a list."""
    if isinstance(images, str | os.PathLike):
        raise ValueError(f"expected several images, got one path: write [{str(images)!r}]")
    if getattr(images, "ndim", 1) not in (1, 4):  # of three axes: one in colour, or many in grey?
        raise ValueError(
            f"expected an array [n, height, width, channels], got one of shape {images.shape}: "
            "one image is image[None], grey images are images[..., None]"
        )
    if getattr(images, "ndim", 1) == 4:
        return images
    if isinstance(images, _NO_LIST) or not isinstance(images, Iterable):
        raise ValueError(
            f"expected a list of images, got {type(images).__name__}: for one image write [image]"
        )
    return list(images)


def _several_texts(texts: Any) -> list[str]:
    if isinstance(texts, _NO_LIST) or not isinstance(texts, Iterable):
        raise ValueError(
            f"expected a list of texts, got {type(texts).__name__}: for one text write [text]"
        )
    texts = list(texts)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(
                f"expected a list of texts, got {cut(text)} ({type(text).__name__}) at texts[{number}]"
            )
        if not is_utf_8(text):
            raise ValueError(f"texts[{number}]: invalid character in {cut(text)}; fix it")
    return texts


def load_run(
    folder: str | os.PathLike[str], *, networks: Mapping[str, nn.Module] | None = None
) -> TrainedRun:
    """Rebuilds what a run has learned from its folder: encoder, preprocessing, tokenizer, weights.

    Args:
      folder: the `--workdir` of a run of `experiments`, finished or not, also `gs://...` or
        `s3://...`; nothing in it changes.
      networks: your own networks, by their names under "model" in config.json, "encoder", or "image"
        and "text" for the encoders of a dual one, with the settings they were trained with; those of
        jaxcon are rebuilt without.

    Returns:
      The run.

    Raises:
      ValueError: if there is no run in the folder, it was written by a version of jaxcon that did not
        record how to rebuild it, or its configuration or tokenizer is missing or damaged.
      CorruptCheckpointError: if none of its checkpoints is intact.
    """
    with reading(folder) as path:
        run = _load(absolute(path), networks or {})
    run.folder = address(folder) or run.folder
    return run


def _load(path: Path, networks: Mapping[str, nn.Module]) -> TrainedRun:
    config = read_config(path)
    if config is None:
        raise ValueError(f"{path}: expected the folder of a run, found no config.json there")
    if any(not isinstance(config.get(name), dict) for name in _RECORDED):
        raise ValueError(
            f"{path}: written by an earlier version of jaxcon, which did not record how to rebuild "
            "the network; jaxcon.training.checkpoint.load_variables returns its arrays, and "
            "--start-from takes them into a new run"
        )
    newest = load_newest(path)
    try:
        return TrainedRun(path, config, *newest, networks)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path / 'config.json'}: damaged, it does not say how to rebuild the network "
            f"({type(error).__name__}: {cut(str(error))}); restore it from a copy"
        ) from error


def load_tokenizer(folder: Path, config: dict[str, Any]) -> Tokenizer:
    """Returns the tokenizer of a run, after checking that the run was trained with it.

    Args:
      folder: the run's folder.
      config: the run's configuration.

    Raises:
      ValueError: if the file is missing, or is not the one the run was trained with.
    """
    file, settings = folder / "tokenizer.json", config["tokenizer"]
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror}); {_RESTORE}") from None
    if hashlib.sha256(content).hexdigest() != settings["sha256"]:
        raise ValueError(f"{file}: not the tokenizer that the run was trained with; {_RESTORE}")
    return Tokenizer.load(file, length=settings["length"])


_RESTORE = "restore it from a copy, or run the run's command again, which rewrites it"


class _Network:
    """A network with its variables, applied to batches of one size: compiled once."""

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        name: str,
        variables: Any,
        inputs: Any,
        networks: Mapping[str, nn.Module],
    ):
        described = config["model"][name]
        own = _own_part(described)
        if own is not None and name not in networks:
            raise ValueError(
                f"{folder}: its {name} is {own['own']}, which only you can rebuild: "
                f"load_run(..., networks={{{name!r}: {own['type']}(...)}})"
            )
        given = networks.get(name)
        if given is not None and own is not None and own is not described:
            given = build({**described, "encoder": given})
        self._module: nn.Module = build(described) if given is None else given
        self._variables = {kind: tree[name] for kind, tree in variables.items() if name in tree}
        wanted = state_leaves(
            jax.eval_shape(lambda x: self._module.init(jax.random.key(0), x, train=False), inputs)
        )
        found = state_leaves(self._variables)
        odd = [k for k in sorted(wanted.keys() | found.keys()) if not _alike(k, wanted, found)]
        if odd:
            raise ValueError(
                f"{folder}: its checkpoint and its config.json disagree about {odd[0]}"
            )
        self._inputs = inputs

        def apply(variables: Any, rows: Any) -> Any:
            outputs: Any = self._module.apply(variables, rows, train=False)
            return outputs.z if isinstance(outputs, Embedded) else outputs

        self._apply: Callable[..., Any] = jax.jit(apply)

    def embed(self, values: Any, rows_of: Callable[[Any, int], np.ndarray], normalize: bool) -> Any:
        """Embeds values; `rows_of(some, first)` makes inputs of those from number `first` on."""
        outputs = []
        for first in range(0, len(values), _BATCH):
            rows = rows_of(values[first : first + _BATCH], first)
            padding = [(0, _BATCH - len(rows)), *[(0, 0)] * (rows.ndim - 1)]
            z = self._apply(self._variables, np.pad(rows, padding))[: len(rows)]
            outputs.append(np.asarray(l2_normalize(z) if normalize else z))
        if not outputs:
            shape = jax.eval_shape(self._apply, self._variables, self._inputs).shape
            return np.zeros((0, *shape[1:]), np.float32)
        return np.concatenate(outputs)


def _own_part(described: Any) -> Mapping[str, Any] | None:
    """Returns the description of the user's own network: the whole, a side's encoder, or None."""
    within = described.get("encoder") if isinstance(described, Mapping) else None
    return next((p for p in (described, within) if isinstance(p, Mapping) and "own" in p), None)


def _alike(name: str, wanted: dict[str, Any], found: dict[str, Any]) -> bool:
    return name in wanted and name in found and wanted[name].shape == found[name].shape
