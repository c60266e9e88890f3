"""`--start-from`: how to go on from a run's weights where the run itself cannot go on."""

import json
import shutil

import pytest

from experiments import barlow_twins, clip, simclr
from experiments.images import two_views
from jaxcon.training.checkpoint import load_newest
from jaxcon.training.digests import state_hash
from tests.experiments.commands import refused
from tests.experiments.folders import begin, captioned, content, pictures, train


@pytest.fixture
def run(tmp_path):
    data = pictures(tmp_path / "pets")
    flags = [f"--dataset=folder:{data}", "--encoder=mlp"]
    folder = tmp_path / "run"
    variables = train(begin(simclr.main, [*flags, f"--workdir={folder}"]))
    return folder, flags, variables


def test_raising_the_epochs_is_refused_with_what_to_do(run, capsys):
    folder, flags, _ = run
    before = content(folder)
    said = refused(simclr.main, [*flags, f"--workdir={folder}", "--epochs=100"], capsys)
    assert "epochs was 60, is 100" in said
    assert f"add --start-from={folder}" in said
    assert content(folder) == before


def test_a_run_starts_from_the_weights_of_another_in_a_folder_of_its_own(
    run, tmp_path, monkeypatch
):
    folder, flags, variables = run
    before = content(folder)
    monkeypatch.chdir(tmp_path)
    given = begin(simclr.main, [*flags, "--epochs=100", f"--start-from={folder}"])
    assert state_hash(given["start"]) == state_hash(variables)
    assert given["workdir"].path.parent == tmp_path / "runs"
    assert given["workdir"].path.name.endswith("pets-from-run")
    config = json.loads((given["workdir"].path / "config.json").read_text())
    weights = {"run": str(folder), "step": 7, "weights": state_hash(variables)}
    assert config["start_from"] == weights
    assert content(folder) == before


def test_a_run_that_has_begun_needs_the_other_no_more(run, tmp_path):
    folder, flags, _ = run
    new = [*flags, f"--workdir={tmp_path / 'new'}", f"--start-from={folder}"]
    train(begin(simclr.main, new), step=0)
    shutil.rmtree(folder)
    given = begin(simclr.main, new)
    assert given["workdir"].resumed
    assert given["start"] is None  # its own checkpoint has them


def test_the_other_run_has_to_be_the_one_it_was(run, tmp_path, capsys):
    """Killed before its first checkpoint, while the other run went on."""
    folder, flags, _ = run
    new = [*flags, f"--workdir={tmp_path / 'new'}", f"--start-from={folder}"]
    begin(simclr.main, new)
    train(begin(simclr.main, [*flags, f"--workdir={folder}"]), step=8)
    assert "start_from.step was 7, is 8" in refused(simclr.main, new, capsys)


def test_what_does_not_fit_is_one_line_before_anything_is_made(run, tmp_path, capsys):
    folder, flags, _ = run
    new = [*flags, f"--workdir={tmp_path / 'new'}", f"--start-from={folder}"]
    for more, said in [
        (["--projection-dim=64"], "trained another network: model.head.dim was 128, is 64"),
        (["--encoder=convnet"], "model.encoder.type was 'MLP', is 'ConvNet'"),
        (["--image-size=4"], "params.encoder.Dense_0.kernel was (192, 512), is (48, 512)"),
        ([f"--workdir={folder}"], "that is also the --workdir"),
        (
            [f"--start-from={tmp_path / 'none'}"],
            "expected the folder of a run, found no config.json",
        ),
        (
            [f"--start-from={tmp_path / 'pets'}"],
            "expected the folder of a run, found no config.json",
        ),
    ]:
        assert said in refused(simclr.main, [*new, *more], capsys)
    assert "model.head.dim" in refused(barlow_twins.main, new, capsys)
    shutil.rmtree(folder / "checkpoints")
    assert "found no checkpoint there" in refused(simclr.main, new, capsys)
    assert not (tmp_path / "new").exists()


def test_weights_of_an_earlier_version_are_told_by_their_shapes(run, tmp_path, capsys):
    folder, flags, variables = run
    config = json.loads((folder / "config.json").read_text())
    del config["model"], config["data"]
    (folder / "config.json").write_text(json.dumps(config))
    new = [*flags, f"--workdir={tmp_path / 'new'}", f"--start-from={folder}"]
    said = refused(simclr.main, [*new, "--projection-dim=64"], capsys)
    assert "params.head.Dense_1.bias was (128,), is (64,)" in said
    assert state_hash(begin(simclr.main, new)["start"]) == state_hash(variables)


def test_the_tokens_of_a_dual_encoder_keep_their_meaning(tmp_path, capsys):
    """New captions are written in the tokens that the weights know."""
    old, new = captioned(tmp_path / "old"), captioned(tmp_path / "new", number=60)
    table = (new / "captions.csv").read_text()
    (new / "captions.csv").write_text(table.replace("thing", "bird"))
    first = ["--encoder=mlp", f"--workdir={tmp_path / 'run'}", f"--dataset=folder:{old}"]
    train(begin(clip.main, first))
    second = ["--encoder=mlp", f"--dataset=folder:{new}", f"--start-from={tmp_path / 'run'}"]
    begin(clip.main, [*second, f"--workdir={tmp_path / 'again'}"])
    files = [(tmp_path / name / "tokenizer.json").read_bytes() for name in ("run", "again")]
    assert files[0] == files[1]
    said = refused(clip.main, [*second, f"--workdir={tmp_path / 'x'}", "--vocabulary=300"], capsys)
    assert "vocabulary was 4096, is 300; its tokens are kept" in said
    images = [f"--dataset=folder:{old}", f"--start-from={tmp_path / 'run'}", "--workdir=x"]
    said = refused(simclr.main, images, capsys)
    assert "a run of experiments.clip, with image and text instead of encoder and head" in said
    (tmp_path / "run" / "tokenizer.json").write_text("{}")
    said = refused(clip.main, [*second, f"--workdir={tmp_path / 'third'}"], capsys)
    assert "not the tokenizer that the run was trained with" in said


def test_a_run_on_images_alone_has_no_tokenizer(run, tmp_path, capsys):
    flags = [f"--dataset=folder:{captioned(tmp_path / 'birds')}", "--encoder=mlp"]
    said = refused(clip.main, [*flags, f"--start-from={run[0]}", "--workdir=x"], capsys)
    assert "has no record of a tokenizer: it was trained on images alone" in said


@pytest.mark.slow
def test_training_begins_with_the_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(two_views, "conclude", lambda *_, **__: None)
    data = pictures(tmp_path / "pets")
    flags = [f"--dataset=folder:{data}", "--encoder=mlp", "--epochs=1", "--batch-size=8"]
    flags += ["--accelerator=cpu", "--num-devices=1", "--checkpoint-every=100"]
    simclr.main([*flags, f"--workdir={tmp_path / 'one'}"])
    step, trained = load_newest(tmp_path / "one")
    assert step == 3
    simclr.main([*flags, f"--workdir={tmp_path / 'two'}", f"--start-from={tmp_path / 'one'}"])
    shutil.rmtree(tmp_path / "two" / "checkpoints" / "3")
    step, first = load_newest(tmp_path / "two")
    assert step == 0
    assert state_hash(first) == state_hash(trained)
