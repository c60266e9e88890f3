"""CIFAR-10 through TFDS' own builder, from an archive in the real binary format made here."""

import importlib.resources
import importlib.util
import io
import os
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import dataset_builder
from tensorflow_datasets.core.download import extractor, resource
from tensorflow_datasets.core.features import image_feature
from tensorflow_datasets.image_classification import cifar

from jaxcon.data.batching import batches
from jaxcon.data.sources import DataError, load
from jaxcon.training.metrics import read_metrics
from tests.data.processes import NO_TENSORFLOW, start

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PER_FILE = 20
# An interpreter with tensorflow-cpu and importlib_resources; the tests' own may have neither.
PYTHON = os.environ.get("JAXCON_TENSORFLOW_PYTHON", sys.executable)
HAS_TENSORFLOW = sys.executable != PYTHON or all(
    importlib.util.find_spec(name) for name in ("tensorflow", "importlib_resources")
)


def _image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)


def _archive(path: Path) -> None:
    """Six files of records: one byte of label, then 1024 bytes each of red, green and blue."""
    files = {"batches.meta.txt": "".join(f"{name}\n" for name in [*CLASSES, ""]).encode()}
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    for number, name in enumerate(names):
        records = range(number * PER_FILE, (number + 1) * PER_FILE)
        files[name] = b"".join(
            bytes([i % 10]) + _image(i).transpose(2, 0, 1).tobytes() for i in records
        )
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def downloaded(tmp_path, monkeypatch):
    """A data folder in which TFDS finds the archive downloaded already."""
    url = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    monkeypatch.setattr(dataset_builder, "importlib_resources", importlib.resources)
    root = tmp_path / "jaxcon"
    (root / "downloads").mkdir(parents=True)
    info = tfds.builder("cifar10", data_dir=str(root)).url_infos[url]
    path = root / "downloads" / resource.get_dl_fname(url, info.checksum)
    _archive(path)
    resource.write_info_file(
        url=url, path=path, dataset_name="cifar10", original_fname=info.filename, url_info=info
    )
    return root


@pytest.fixture
def without_tensorflow(monkeypatch):
    """Stands in for what TFDS takes from TensorFlow here: opening files and encoding PNGs.

    The rest is TFDS as users run it. The slow test below does without this.
    """

    files = SimpleNamespace(
        io=SimpleNamespace(gfile=SimpleNamespace(GFile=open)),
        compat=SimpleNamespace(as_text=str),
    )

    def encode(self, pixels):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="png")
        return buffer.getvalue()

    monkeypatch.setattr(cifar, "tf", files)
    monkeypatch.setattr(extractor, "tf", files)
    monkeypatch.setattr(image_feature._ImageEncoder, "_encode_image", encode)


def _check(dataset) -> None:
    assert dataset.class_names == tuple(CLASSES)
    sizes = [len(split) for split in (dataset.train, dataset.validation, dataset.test)]
    assert sizes == [90, 10, 20]
    numbers = {_image(i).tobytes(): i for i in range(6 * PER_FILE)}
    found = {
        part: [numbers[image.tobytes()] for image in getattr(dataset, part).images]
        for part in ("train", "validation", "test")
    }
    assert sorted(found["train"] + found["validation"]) == list(range(100))
    assert sorted(found["test"]) == list(range(100, 120))
    for part, order in found.items():
        assert getattr(dataset, part).labels.tolist() == [i % 10 for i in order]


def test_real_builder_prepares_and_all_images_come_back(downloaded, without_tensorflow):
    _check(load("cifar10", data_dir=downloaded))
    lazy = load("cifar10", data_dir=downloaded, memory_limit=0)
    now = load("cifar10", data_dir=downloaded)
    assert not lazy.train.in_memory
    for one, other in zip(
        batches(lazy.train, seed=0, batch_size=32, num_steps=3),
        batches(now.train, seed=0, batch_size=32, num_steps=3),
        strict=True,
    ):
        np.testing.assert_array_equal(one["image"], other["image"])


@pytest.mark.exhaustive
def test_simclr_trains_on_it_where_tensorflow_cannot_be_imported(downloaded, without_tensorflow):
    load("cifar10", data_dir=downloaded)
    flags = ["--dataset=cifar10", f"--data-dir={downloaded}", "--epochs=2", "--batch-size=32"]
    flags += ["--image-size=16"]  # a quarter of the work
    # The published recipe is that of the whole archive; ninety images would get a smaller one.
    flags += ["--encoder=resnet18", "--optimizer=lars", "--temperature=0.5", "--accelerator=cpu"]
    workdir = downloaded.parent / "run"
    code = f"""{NO_TENSORFLOW}
from experiments import simclr
simclr.main({[*flags, f"--workdir={workdir}"]})
import sys
assert "tensorflow" not in sys.modules
"""
    process = start(code, cache=downloaded.parent)
    try:
        output, errors = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert "trained encoder" in output
    rows = read_metrics(workdir / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert all(np.isfinite(row["loss"]) and row["skipped"] == 0 for row in rows)


@pytest.mark.exhaustive
@pytest.mark.skipif(not HAS_TENSORFLOW, reason="preparing needs tensorflow-cpu")
def test_prepared_with_tensorflow_then_read_where_it_cannot_be_imported(downloaded):
    code = "from jaxcon.data.sources import load; d = load('cifar10'); print(len(d.train))"
    prepare = start(code, cache=downloaded.parent, python=PYTHON)
    output, errors = prepare.communicate(timeout=300)
    assert prepare.returncode == 0, errors
    read = start(f"{NO_TENSORFLOW}\n{code}", cache=downloaded.parent)
    output, errors = read.communicate(timeout=120)
    assert (output, read.returncode) == ("90\n", 0), errors
    _check(load("cifar10", data_dir=downloaded))


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed"
)
def test_without_tensorflow_the_error_says_what_to_install(downloaded):
    with pytest.raises(DataError, match="cifar10 has to be prepared once") as error:
        load("cifar10", data_dir=downloaded)
    assert "Run: pip install tensorflow-cpu" in str(error.value)
    assert "reading it needs no TensorFlow" in str(error.value)
    assert "\n" not in str(error.value)
