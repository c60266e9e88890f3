"""`jaxcon.load_run`: what a run's folder says is enough to use what it learned."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import jaxcon
from experiments import clip, simclr
from jaxcon.augment import to_float
from jaxcon.data.captions import load_pairs
from jaxcon.data.sources import load
from jaxcon.encoders.tokenizer import Tokenizer
from jaxcon.training.checkpoint import CorruptCheckpointError
from tests.experiments.folders import begin, captioned, pictures, train

README = (Path(__file__).parents[1] / "README.md").read_text()


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def blocks(word):
    """The snippets of the README that hold a word."""
    return [b for b in re.findall(r"```python\n([^`]*)```", README) if word in b]


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    """A run on pictures, its network and what it holds."""
    root = tmp_path_factory.mktemp("views")
    data = pictures(root / "pets")
    flags = [f"--dataset=folder:{data}", f"--workdir={root / 'run'}", "--encoder=convnet"]
    given = begin(simclr.main, flags)
    return root / "run", data, given, train(given)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    data = captioned(root / "birds")
    flags = [f"--dataset=folder:{data}", f"--workdir={root / 'run'}", "--encoder=convnet"]
    given = begin(clip.main, [*flags, "--loss=gaussian"])
    return root / "run", data, given, train(given)


def test_images_become_the_features_of_the_encoder(views):
    folder, data, given, variables = views
    run = jaxcon.load_run(folder)
    train_split = load(f"folder:{data}").train
    apply = jax.jit(given["apply_fn"], static_argnames="method")
    features, _ = apply(variables, to_float(train_split.images), method="encode")
    z = run.embed_images(train_split.images)
    assert (run.step, run.image_shape, z.dtype, z.shape) == (7, (8, 8, 3), np.float32, (28, 128))
    np.testing.assert_allclose(z, unit(np.asarray(features)), atol=1e-5)
    files = [data / name for name in train_split.names or ()]
    np.testing.assert_array_equal(run.embed_images(files), z)
    raw = run.embed_images(files, normalize=False)
    np.testing.assert_allclose(raw, features, rtol=1e-4, atol=1e-5)


def test_batches_do_not_show(views):
    run = jaxcon.load_run(views[0])
    images = np.random.default_rng(0).integers(0, 256, (130, 8, 8, 3), np.uint8)
    z = run.embed_images(images)
    np.testing.assert_allclose(run.embed_images(images[100:103]), z[100:103], atol=1e-6)
    assert run.embed_images(images[:0]).shape == (0, 128)
    assert run.embed_images([]).dtype == np.float32


def test_pairs_become_what_the_loss_compares(pairs):
    folder, data, given, variables = pairs
    run = jaxcon.load_run(folder)
    dataset = load_pairs(f"folder:{data}")
    texts = [captions[0] for captions in dataset.train.captions]
    tokenizer = Tokenizer.load(folder / "tokenizer.json", length=run.config["tokenizer"]["length"])
    apply = jax.jit(given["apply_fn"], static_argnames="train")
    rows = to_float(dataset.train.images.images), tokenizer.encode(texts)
    outputs = apply(variables, *rows, train=False)
    images, captions = run.embed_images(dataset.train.images.images), run.embed_texts(texts)
    np.testing.assert_allclose(images, unit(np.asarray(outputs.image.z)), atol=1e-5)
    np.testing.assert_allclose(captions, unit(np.asarray(outputs.text.z)), atol=1e-5)
    assert images.dtype == captions.dtype == np.float32
    assert run.embed_texts([]).shape == (0, 128)


def test_nothing_in_the_folder_is_needed_but_what_is_said(views, tmp_path):
    """Neither the data, nor the metrics; and nothing in it changes."""
    folder, _, _, _ = views
    for name in ("config.json", "checkpoints"):
        source = folder / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    before = sorted(tmp_path.rglob("*"))
    images = np.zeros((1, 8, 8, 3), np.uint8)
    np.testing.assert_array_equal(
        jaxcon.load_run(tmp_path).embed_images(images),
        jaxcon.load_run(str(folder)).embed_images(images),
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_a_save_in_progress_is_left_alone(views, tmp_path):
    """The run may be going on: what another process is writing is not swept away."""
    shutil.copytree(views[0], tmp_path / "run")
    half = tmp_path / "run" / "checkpoints" / "9.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "file").write_text("half")
    assert jaxcon.load_run(tmp_path / "run").step == 7
    assert (half / "file").exists()


def test_other_colours_and_sizes_are_brought_to_those_of_the_run(views):
    run = jaxcon.load_run(views[0])
    z = run.embed_images(
        [np.zeros((30, 20), np.uint8), np.zeros((8, 8, 3)), Image.new("L", (9, 9))]
    )
    np.testing.assert_allclose(z, z[[0, 0, 0]], atol=1e-6)


def test_texts_need_a_text_encoder_and_are_texts(views, pairs):
    with pytest.raises(ValueError, match=r"trained by simclr on images alone, .* no text encoder"):
        jaxcon.load_run(views[0]).embed_texts(["a bird"])
    run = jaxcon.load_run(pairs[0])
    some: Any = run.embed_texts
    for bad in ("a bird", [3], [None], b"a bird", None, 3, {"a bird"}, {"a bird": 1}, [b"a bird"]):
        with pytest.raises(ValueError, match="expected a list of texts, got "):
            some(bad)
    with pytest.raises(ValueError, match=r"texts\[1\]: invalid character in \\ud83d"):
        run.embed_texts(["a bird", "\ud83d"])
    for good in (("a bird", "two"), np.array(["a bird", "two"]), iter(["a bird", "two"])):
        np.testing.assert_array_equal(some(good), some(["a bird", "two"]))
    with pytest.raises(
        ValueError, match=r"expected several images, got one path: write \['a.png'\]"
    ):
        run.embed_images("a.png")
    with pytest.raises(
        ValueError, match=r"got one of shape \(8, 8, 3\): one image is image\[None\]"
    ):
        run.embed_images(np.zeros((8, 8, 3), np.uint8))


def test_images_in_any_order_of_things(views):
    folder, data, _, _ = views
    run = jaxcon.load_run(folder)
    files = sorted((data / "cat").glob("*.png"))
    z = run.embed_images(files)
    for same in ((data / "cat" / file.name for file in files), np.array(list(map(str, files)))):
        np.testing.assert_array_equal(run.embed_images(same), z)
    for bad in (None, 3, Image.new("L", (9, 9)), files[0].read_bytes(), {"image": z}, set(files)):
        with pytest.raises(ValueError, match=r"expected a list of images, got .* write \[image\]"):
            run.embed_images(bad)


def test_what_cannot_be_rebuilt_is_said(views, pairs, tmp_path):
    def altered(source, **changes):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(source, tmp_path / "run")
        file = tmp_path / "run" / "config.json"
        config = json.loads(file.read_text()) | changes
        file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
        return tmp_path / "run"

    with pytest.raises(ValueError, match=r"found no config\.json there"):
        jaxcon.load_run(tmp_path / "none")
    with pytest.raises(ValueError, match="written by an earlier version of jaxcon"):
        jaxcon.load_run(altered(views[0], model=None, preprocessing=None))
    model = json.loads((views[0] / "config.json").read_text())["model"]
    wider = {**model, "encoder": {**model["encoder"], "widths": [32, 64, 256]}}
    with pytest.raises(ValueError, match=r"its checkpoint and its config\.json disagree about "):
        jaxcon.load_run(altered(views[0], model=wider))
    with pytest.raises(ValueError, match="unknown network 'GAN'"):
        jaxcon.load_run(altered(views[0], model={"encoder": {"type": "GAN"}}))
    for damage in (
        {"preprocessing": {}},
        {"preprocessing": {"size": 8, "channels": 3}},
        {"model": {}},
        {"model": {"encoder": 3}},
    ):
        with pytest.raises(ValueError, match=r"config\.json: damaged, .* \(\w+Error: .*restore it"):
            jaxcon.load_run(altered(views[0], **damage))
    for damage in (None, {}):
        with pytest.raises(ValueError, match=r"config\.json: damaged, .* \(KeyError: "):
            jaxcon.load_run(altered(pairs[0], tokenizer=damage))
    (altered(pairs[0]) / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="not the tokenizer that the run was trained with"):
        jaxcon.load_run(tmp_path / "run")
    (tmp_path / "run" / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"tokenizer\.json: cannot be read"):
        jaxcon.load_run(tmp_path / "run")
    shutil.rmtree(altered(views[0]) / "checkpoints" / "7" / "state")
    with pytest.raises(CorruptCheckpointError, match="is intact"):
        jaxcon.load_run(tmp_path / "run")


def test_the_snippet_of_the_readme_for_pairs(pairs):
    folder, data, _, _ = pairs
    (block,) = blocks("embed_texts")
    block = block.replace("runs/clip-scenes", str(folder))
    names = {"images": sorted(data.glob("*.png"))[:3]}
    exec(block, names)
    assert names["scores"].shape == (3, 2)
    assert np.abs(names["scores"]).max() <= 1 + 1e-6


def test_it_is_a_name_of_the_package():
    from jaxcon.runs import load_run

    assert jaxcon.load_run is load_run
    with pytest.raises(AttributeError, match="no attribute 'load_rum'"):
        _ = jaxcon.load_rum  # pyright: ignore[reportAttributeAccessIssue]
    assert jax.__version__
