"""The dual encoder: losses and scores that belong together, a short run, refused options."""

import json
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import clip
from experiments.pairs.prompts import make_prompts
from jaxcon.data.shipped import scenes
from jaxcon.data.shipped.drawing import Draws
from jaxcon.data.shipped.grammar import caption
from jaxcon.training.metrics import read_metrics
from tests.experiments.commands import end_alike, refused

SPLITS = {"train": 64, "validation": 16, "test": 48}
SHORT = ["--epochs=2", "--batch-size=32", "--encoder=mlp", "--accelerator=cpu", "--num-devices=1"]
SHORT += ["--evaluate-every=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run of the loss with most to report, on few scenes."""
    assert len(jax.devices()) == 8  # made now, for a run that asks for one would make but one
    folder = tmp_path_factory.mktemp("clip")
    arguments = [*SHORT, f"--data-dir={folder}/data", f"--workdir={folder}/run", "--loss=gaussian"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "SPLITS", SPLITS)
        clip.main(arguments)
    return folder / "run", arguments


@pytest.mark.slow
def test_a_run_leaves_everything_in_its_folder(run):
    workdir, _ = run
    names = {path.name for path in (workdir / "figures").iterdir()}
    assert names == {"loss.png", "scores.png", "similarity.png", "deviations.png"}
    assert (workdir / "tokenizer.json").exists()
    rows = read_metrics(workdir / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(4))
    results = json.loads((workdir / "results.json").read_text())
    assert list(results["scores"]) == ["trained", "untrained", "chance"]
    trained, chance = results["scores"]["trained"], results["scores"]["chance"]
    assert list(trained) == list(chance)
    assert trained["image to text, recall@1"] <= trained["image to text, recall@10"] <= 1
    assert chance["text to image, recall@10"] == pytest.approx(10 / 48, rel=0.1)
    assert chance["zero-shot shape"] == pytest.approx(1 / 6)
    told = " ".join(results["notes"])
    assert "log deviation of a test caption with its grade" in told
    for said in (
        "of chance, 3.466 (ln 32)",
        "recall@10 went from",
        "Collapse check on all 48 test pairs",
    ):
        assert said in told
    page = (workdir / "report.html").read_text()
    assert "<h1>Gaussian CLIP on scenes</h1>" in page
    assert page.count("<figure><img") == 4
    assert "mean of both ways, among 16 validation images and as many captions" in page
    assert [row["step"] for row in rows if 0 <= row.get("recall_at_1", -1) <= 1] == [1, 3]
    assert page.count('class="columns"') == 3
    assert "<td>zero-shot colour</td>" in page


@pytest.mark.exhaustive
def test_a_finished_run_shows_its_table(run, capsys):
    workdir, arguments = run
    clip.main(arguments)
    out = capsys.readouterr().out
    assert f"this run is finished: {workdir}" in out
    assert "text to image, recall@10" in out


def losses(folder):
    return [row["loss"] for row in read_metrics(folder / "metrics.jsonl")]


@pytest.mark.exhaustive
def test_two_devices_give_the_losses_of_one(run):
    workdir, arguments = run
    shared = workdir.parent / "shared"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "SPLITS", SPLITS)
        clip.main([*arguments, "--num-devices=2", f"--workdir={shared}"])
    np.testing.assert_allclose(losses(shared), losses(workdir), rtol=1e-4)


def command(folder, data_dir):
    code = f"""
from jaxcon.data.shipped import scenes
from jaxcon.data.shipped.drawing import Draws
from jaxcon.data.shipped.grammar import caption
scenes.SPLITS = {SPLITS}
from experiments import clip
clip.main()
"""
    flags = [*SHORT, "--epochs=20", "--checkpoint-every=5", f"--data-dir={data_dir}"]
    return [sys.executable, "-c", code, *flags, f"--workdir={folder}"]


@pytest.mark.exhaustive
def test_a_killed_run_ends_like_an_uninterrupted_one(run, tmp_path):
    data_dir = run[0].parent / "data"
    step, said = end_alike(lambda folder: command(folder, data_dir), tmp_path)
    assert step == 40
    assert "resumed at step" in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--loss=gaussian", "--temperature=1"], "--loss=gaussian has none; leave it out"),
        (["--temperature=20"], "--temperature=20.0: a learned one must start between 0.01 and 10"),
        (["--vocabulary=100"], "--vocabulary=100: expected a number of at least 257"),
        (["--dataset=folder:/no/such"], "there is no folder /no/such"),
        (["--dataset=scones"], "did you mean scenes"),
    ],
)
def test_one_line_and_exit_code_2(flags, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in refused(clip.main, flags, capsys)


def test_a_table_with_a_missing_image_leaves_nothing_behind(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "captions.csv").write_text("image,caption\nnone.png,a bird\n")
    with pytest.raises(SystemExit):
        clip.main([f"--dataset=folder:{tmp_path}", "--workdir=run"])
    assert "captions.csv row 2: there is no image" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_images_that_the_encoder_does_not_take_leave_nothing_behind(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "birds").mkdir()
    rows = ["image,caption"]
    for number in range(20):
        Image.new("L", (32, 32), 10 * number).save(tmp_path / "birds" / f"{number}.png")
        rows.append(f"{number}.png,number {number}")
    (tmp_path / "birds" / "captions.csv").write_text("\n".join(rows))
    flags = ["--dataset=folder:birds", "--workdir=run", "--encoder=vit"]
    assert "patch" in refused(clip.main, [*flags, "--image-size=30"], capsys)
    assert not (tmp_path / "run").exists()


def test_prompts_are_phrased_as_captions_are():
    prompts = [
        prompt
        for name, values in (
            ("shape", scenes.SHAPES),
            ("colour", tuple(scenes.COLOURS)),
            ("size", scenes.SIZES),
            ("position", scenes.POSITIONS),
        )
        for prompt in make_prompts(name, values)
    ]
    told = set()
    for number in range(12_000):
        draws = Draws(0, number)
        scene = scenes.sample_scene(draws, test=False)
        told |= {caption(scene, grade, draws) for grade in (2, 3)}
    assert set(prompts) <= told
