"""Runs on photographs: cropped as they are read, from any source, by any number of workers."""

import io
import json

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import clip, simclr
from experiments.images.recipes import Images
from experiments.running.options import Machine
from experiments.running.sources import (
    Source,
    check_source,
    crops_of,
    fill_crop_scale,
    reading,
)
from jaxcon.data.skipped import read_skipped
from jaxcon.data.sources import load
from jaxcon.data.splits import Split
from jaxcon.data.stored import StoredFiles
from tests.data.readers.pictures import write_parquet, write_tar
from tests.experiments.commands import refused
from tests.experiments.folders import begin
from tests.experiments.trajectories import train

SIDE = "--image-size=16"
NUMBER = 40  # pictures, of which 28 are for training


def photograph(seed: int, width: int, height: int) -> bytes:
    """A JPEG of smooth noise."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
    file = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """Pictures of two classes, none of one size, by their path."""
    sizes = ((60, 44), (44, 60), (35, 35), (80, 30))
    return {
        f"{('cat', 'dog')[i % 2]}/{i:02}.jpg": photograph(i, *sizes[i % 4]) for i in range(NUMBER)
    }


@pytest.fixture(scope="module")
def data(contents, tmp_path_factory):
    """Folders of these pictures, with captions in one of them."""
    root = tmp_path_factory.mktemp("photographs")
    words = ("red", "green", "blue", "small", "large")
    rows = ["image,caption"]
    for number, (path, content) in enumerate(contents.items()):
        for folder in ("pets", "told"):
            file = root / folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        rows.append(f"{path},a {words[number % 5]} thing number {number}")
    (root / "told" / "captions.csv").write_text("\n".join(rows) + "\n")
    return {"simclr": root / "pets", "barlow_twins": root / "pets", "clip": root / "told"}


def same(one, other) -> bool:
    leaves = zip(jax.tree.leaves(one.variables), jax.tree.leaves(other.variables), strict=True)
    return one.losses == other.losses and all(map(np.array_equal, *zip(*leaves, strict=True)))


@pytest.mark.slow
def test_a_run_is_the_same_from_a_folder_tar_and_parquet(contents, data, tmp_path):
    write_tar(tmp_path / "pets.tar", contents)
    columns = {"image": [{"bytes": v, "path": k} for k, v in contents.items()]}
    columns["label"] = [path.partition("/")[0] for path in contents]
    write_parquet(tmp_path / "pets.parquet", columns)
    whole = train("simclr", tmp_path / "folder", data, SIDE, "--data-workers=0")
    for kind in ("tar", "parquet"):
        flags = (SIDE, "--data-workers=0", f"--dataset={kind}:{tmp_path}/pets.{kind}")
        assert same(train("simclr", tmp_path / kind, data, *flags), whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simclr", "barlow_twins", "clip"])
def test_workers_and_resumption_change_nothing_and_devices_the_last_digits(name, data, tmp_path):
    whole = train(name, tmp_path / "whole", data, SIDE, "--data-workers=0")
    assert same(train(name, tmp_path / "workers", data, SIDE, "--data-workers=2"), whole)
    train(name, tmp_path / "stopped", data, SIDE, "--data-workers=1", stop=3)
    assert same(train(name, tmp_path / "stopped", data, SIDE, "--data-workers=0"), whole)
    train(name, tmp_path / "four", data, SIDE, "--num-devices=4").assert_close(whole)


def damaged(data, root, number=3):
    """A copy of the folder in which training pictures end in their middle; no header tells."""
    names = tuple(load(f"folder:{data['simclr']}").train.names or ())[:number]
    for path in sorted(data["simclr"].rglob("*.jpg")):
        file = root / path.relative_to(data["simclr"])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(path.read_bytes())
    for name in names:
        path = root / name
        path.write_bytes(path.read_bytes()[:300] + b"\xff\xd9")  # as if complete
    return {"simclr": root}


def test_a_bad_picture_ends_a_run_in_one_line(data, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        train("simclr", tmp_path / "run", damaged(data, tmp_path / "pets"), SIDE)
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "cannot read the image" in last
    assert ".jpg (" in last


def test_bad_pictures_are_replaced_and_listed(data, tmp_path):
    bad = damaged(data, tmp_path / "pets")
    flags = (SIDE, "--bad-images=skip")
    whole = train("simclr", tmp_path / "run", bad, *flags, "--data-workers=0")
    assert np.isfinite(whole.losses).all()
    listed = read_skipped(tmp_path / "run")
    assert len(listed) == 3
    assert all(".jpg" in one.place and one.reason for one in listed)
    assert "bad_images" not in json.loads((tmp_path / "run" / "config.json").read_text())


def test_what_is_small_and_of_one_size_is_not_cropped_on_the_host():
    split = Split(np.zeros((4, 8, 8, 1), np.uint8))
    config = simclr.SimCLR()
    assert fill_crop_scale(config, split, 0.08) is config
    assert crops_of(split, config.images, views=2, flip=True) is None
    asked = simclr.SimCLR(Images(crop_scale=0.5))
    with pytest.raises(ValueError, match=r"--crop-scale=0\.5: the images of digits are small"):
        fill_crop_scale(asked, split, 0.08)


def test_crops_follow_the_options():
    split = Split(np.zeros((4, 32, 32, 3), np.uint8), originals=StoredFiles(["a.jpg"] * 4))
    for scale, area in ((None, (0.9, 1.0)), (0.25, (0.25, 1.0))):
        config = fill_crop_scale(simclr.SimCLR(Images(crop_scale=scale)), split, 0.9)
        assert config.images.crop_scale == area[0]  # as config.json says
        crops = crops_of(split, config.images, views=1, flip=False)
        assert (crops.side, crops.views, crops.area, crops.flip) == (32, 1, area, False)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("crop_scale", 0.0, "above 0 and at most 1"),
        ("crop_scale", 1.5, "above 0 and at most 1"),
        ("train_share", 1.0, "above 0 and below 1"),
        ("image_size", 0, "above 0"),
    ],
)
def test_options_out_of_range_are_told(option, value, said):
    with pytest.raises(ValueError, match=f"--{option.replace('_', '-')}={value}: .*{said}"):
        check_source(Source(**{option: value}))


@pytest.mark.parametrize("page", [simclr, clip])
def test_a_negative_number_of_workers_is_told(page, capsys):
    with pytest.raises(SystemExit):
        page.main(["--data-workers=-1"])
    assert "--data-workers=-1: expected a number of at least 0" in capsys.readouterr().err


def test_only_what_is_read_needs_readers(tmp_path):
    split = Split(np.zeros((4, 8, 8, 1), np.uint8))
    assert reading(Machine(), split, tmp_path) == {}
    cropped = Split(split.images, originals=StoredFiles(["a.jpg"] * 4))
    settings = reading(Machine(data_workers=3), cropped, tmp_path)
    assert (settings["num_workers"], settings["bad_images"]) == (3, "error")
    assert settings["on_bad"] is None


def test_a_run_on_photographs_of_an_earlier_version_is_told(data, tmp_path, capsys):
    flags = [f"--dataset=folder:{data['simclr']}", SIDE, f"--workdir={tmp_path / 'run'}"]
    begin(simclr.main, flags)
    file = tmp_path / "run" / "config.json"
    config = json.loads(file.read_text())
    new = ("crop_scale", "train_share", "validation_dataset")
    file.write_text(json.dumps({k: v for k, v in config.items() if k not in new}))
    said = refused(simclr.main, flags, capsys)
    assert "begun by an earlier version of jaxcon, which cropped images at another size" in said
