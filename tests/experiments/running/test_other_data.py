"""A run belongs to its data: with other data it is refused, and nothing in its folder changes."""

import json
import shutil

import pytest
from PIL import Image

from experiments import clip, simclr
from tests.data.readers.pictures import members, picture, write_tar
from tests.experiments.commands import refused
from tests.experiments.folders import begin, captioned, content, draw, pictures


@pytest.fixture
def views(tmp_path):
    """A folder of pictures, and the flags of a run on it."""
    data = pictures(tmp_path / "pets")
    return data, [f"--dataset=folder:{data}", f"--workdir={tmp_path / 'run'}", "--encoder=mlp"]


@pytest.fixture
def pairs(tmp_path):
    data = captioned(tmp_path / "birds")
    return data, [f"--dataset=folder:{data}", f"--workdir={tmp_path / 'run'}", "--encoder=mlp"]


def remove(data):
    (data / "cat" / "04.png").unlink()


def replace(data):
    size = (data / "cat" / "04.png").stat()
    draw(data / "cat" / "04.png", 1000)
    assert size is not None


def add(data):
    draw(data / "dog" / "new.png", 1000)


def add_class(data):
    for i in range(5):
        draw(data / "fox" / f"{i}.png", 1000 + i)


def rename_class(data):
    (data / "cat").rename(data / "kitten")


def move(data):
    shutil.move(data / "cat" / "04.png", data / "dog" / "04.png")


CHANGES = [
    (remove, "1 image removed (cat/04.png)"),
    (replace, "1 image replaced (cat/04.png)"),
    (add, "1 image added (dog/new.png)"),
    (add_class, "1 class added (fox), 5 images added (fox/0.png, fox/1.png, fox/2.png, ...)"),
    (rename_class, "1 class added (kitten), 1 class removed (cat)"),
    (move, "1 image added (dog/04.png), 1 image removed (cat/04.png)"),
]


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_other_images_are_refused_and_named(views, tmp_path, capsys, change, said, finished):
    data, flags = views
    begin(simclr.main, flags)
    if finished:
        (tmp_path / "run" / "checkpoints" / "1").mkdir(parents=True)
        (tmp_path / "run" / "results.json").write_text('{"scores": {}}')
    before = content(tmp_path / "run")
    change(data)
    told = refused(simclr.main, flags, capsys)
    assert f"trained on other data: {said}" in told
    assert "--start-from=" in told
    assert content(tmp_path / "run") == before


def test_another_way_to_read_the_images_is_no_other_data(views, pairs, capsys):
    _, flags = views
    begin(simclr.main, flags)
    told = refused(simclr.main, [*flags, "--image-size=7"], capsys)
    assert (
        "made with another configuration: image_size was None, is 7; use the former values" in told
    )
    told = refused(clip.main, pairs[1], capsys)
    assert (
        "made with another configuration: experiment was 'simclr', is 'clip'; use the former values"
        in told
    )


def test_the_same_images_are_the_same_data_wherever_and_whenever(views, tmp_path):
    data, flags = views
    first = begin(simclr.main, flags)
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    for path in copy.rglob("*.png"):
        path.touch()
    again = begin(simclr.main, [f"--dataset=folder:{copy}", *flags[1:]])
    assert not first["workdir"].resumed
    assert again["workdir"].resumed


def test_pictures_read_from_disk_are_told_by_their_files(views, tmp_path, capsys, monkeypatch):
    """As in a folder that does not fit into memory."""
    from jaxcon.data import sources

    defaults = {**(sources.load.__kwdefaults__ or {}), "memory_limit": 0}
    monkeypatch.setattr(sources.load, "__kwdefaults__", defaults)
    data, flags = views
    begin(simclr.main, flags)
    begin(simclr.main, flags)
    replace(data)
    assert "1 image replaced (cat/04.png)" in refused(simclr.main, flags, capsys)


def test_another_shard_is_told_and_the_same_elsewhere_is_not(tmp_path, capsys):
    contents = members(number=20)
    halves = [dict(list(contents.items())[i::2]) for i in range(2)]
    for i, half in enumerate(halves):
        write_tar(tmp_path / "shards" / f"{i}.tar", half)
    flags = [f"--workdir={tmp_path / 'run'}", "--encoder=mlp"]
    begin(simclr.main, [f"--dataset=tar:{tmp_path}/shards/{{0..1}}.tar", *flags])
    shutil.copytree(tmp_path / "shards", tmp_path / "elsewhere")
    assert begin(simclr.main, [f"--dataset=tar:{tmp_path}/elsewhere", *flags])["workdir"].resumed
    halves[1]["cat/1.jpg"] = picture(1000)
    write_tar(tmp_path / "shards" / "1.tar", halves[1])
    before = content(tmp_path / "run")
    said = refused(simclr.main, [f"--dataset=tar:{tmp_path}/shards", *flags], capsys)
    assert "trained on other data: 1 file replaced (1.tar)" in said
    assert content(tmp_path / "run") == before


def test_other_captions_are_refused_before_the_tokenizer_is_written(pairs, tmp_path, capsys):
    data, flags = pairs
    begin(clip.main, flags)
    before = content(tmp_path / "run")
    assert str(tmp_path / "run" / "tokenizer.json") in before
    table = (data / "captions.csv").read_text()
    # Of the same length and the same words, so that the vocabulary is as large as it was.
    (data / "captions.csv").write_text(
        table.replace("a red thing number 5", "a large thing number 5")
    )
    said = refused(clip.main, flags, capsys)
    assert "trained on other data: captions of 1 image (05.png) edited" in said
    assert content(tmp_path / "run") == before


def test_a_lost_tokenizer_is_learned_again_and_has_to_be_the_same(pairs, tmp_path):
    _, flags = pairs
    begin(clip.main, flags)
    before = content(tmp_path / "run")
    for damage in (lambda file: file.unlink(), lambda file: file.write_text("{}")):
        damage(tmp_path / "run" / "tokenizer.json")
        begin(clip.main, flags)
        assert content(tmp_path / "run") == before


def test_the_configuration_says_what_was_trained_on(views, tmp_path):
    _, flags = views
    begin(simclr.main, flags)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["classes"] == ["cat", "dog"]
    counts = [config["data"][part]["images"] for part in ("train", "validation", "test")]
    assert counts == [28, 4, 8]


def test_a_run_of_an_earlier_version_is_told_from_one_of_today(views, tmp_path, capsys):
    """Its config.json holds the options, and neither data nor network."""
    _, flags = views
    begin(simclr.main, flags)
    file = tmp_path / "run" / "config.json"
    now = json.loads(file.read_text())
    new = ("written_by", "experiment", "start_from", "preprocessing", "model", "data")
    file.write_text(json.dumps({k: v for k, v in now.items() if k not in new} | {"data_dir": None}))
    said = refused(simclr.main, flags, capsys)
    assert "begun by an earlier version of jaxcon" in said
    assert f"--start-from={tmp_path / 'run'}" in said
    assert "seed was 0, is 1" in refused(simclr.main, [*flags, "--seed=1"], capsys)
    (tmp_path / "run" / "checkpoints" / "1").mkdir(parents=True)
    (tmp_path / "run" / "results.json").write_text('{"scores": {}}')
    (tmp_path / "run" / "report.html").touch()
    simclr.main(flags)
    assert "did not record its data" in capsys.readouterr().out


def test_another_experiment_is_one_difference(views, tmp_path, capsys):
    from experiments import barlow_twins

    _, flags = views
    begin(simclr.main, flags)
    said = refused(barlow_twins.main, flags, capsys)
    assert "experiment was 'simclr', is 'barlow_twins'; use the former values" in said


def test_a_damaged_configuration_or_result_is_one_line(views, tmp_path, capsys):
    _, flags = views
    begin(simclr.main, flags)
    run = tmp_path / "run"
    good = (run / "config.json").read_bytes()
    for bad in (
        b"{",
        b"\xff\xfe\x00",
        b"[1, 2]",
        b"",
        b'{"seed": 0',
        good.replace(b'"data"', b'"dada"'),
    ):
        (run / "config.json").write_bytes(bad)
        refused(simclr.main, flags, capsys)
    (run / "config.json").write_bytes(good)
    (run / "checkpoints" / "1").mkdir(parents=True)
    (run / "report.html").write_text("")
    for bad in (b"{", b"\xff", b"[]", b"{}"):
        (run / "results.json").write_bytes(bad)
        assert "results.json" in refused(simclr.main, flags, capsys)


def test_an_image_that_could_not_be_read_may_change(views, tmp_path, capsys):
    """What training noted as unreadable is repaired: the run goes on; any other is refused."""
    data, flags = views
    begin(simclr.main, flags)
    (tmp_path / "run" / "unreadable.json").write_text('["cat/04.png"]')
    draw(data / "cat" / "04.png", 1000)
    assert begin(simclr.main, flags)["workdir"].resumed
    Image.new("RGB", (8, 8)).save(data / "cat" / "06.png")
    assert "1 image replaced (cat/06.png)" in refused(simclr.main, flags, capsys)
