"""One's own encoders, loss and pairs go through the same stages as those of a flag."""

import dataclasses
import functools
import json
import shutil

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcon
from experiments.pairs import dual, objectives
from experiments.pairs.your_own import pretrain
from experiments.running.handed import gathered
from experiments.running.options import Machine, Training, check_range, parse
from jaxcon.augment import gaussian_noise
from jaxcon.data.splits import PairDataset, PairSplit, Split
from jaxcon.encoders.dual import Side
from jaxcon.losses import clip_loss, siglip_loss
from jaxcon.training.checkpoint import load_newest
from jaxcon.training.digests import state_hash
from jaxcon.training.metrics import read_metrics
from tests.experiments.commands import refused
from tests.experiments.folders import begin, begin_page, content, train
from tests.marks import slow_unless


class Small(nn.Module):
    width: int = 4

    @nn.compact
    def __call__(self, images, *, train):
        return nn.tanh(nn.Dense(self.width)(images.reshape(len(images), -1)))


class Words(nn.Module):
    vocabulary: int = 300

    @nn.compact
    def __call__(self, tokens, *, train):
        return nn.Embed(self.vocabulary, 4)(tokens).mean(axis=1)


def hinge(images, texts, margin=1.0):
    """Of a library that knows no devices: each pair nearer than all others, by a margin."""
    scores = images @ texts.T
    return nn.relu(margin + scores - jnp.diag(scores)[:, None]).mean()


def pairs(number, seed, words=("even", "odd")):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 100, (number, 4, 4, 1), np.uint8)
    pixels[1::2] += 150
    captions = tuple((f"{words[i % 2]} {i % 10}", f"it is {words[i % 2]}") for i in range(number))
    return PairSplit(Split(pixels), captions)


DATA = PairDataset("dots", pairs(32, 0), pairs(16, 1), pairs(16, 2))
HANDED = {
    "loss": gathered(hinge),
    "image_encoder": Small(),
    "text_encoder": Words(),
    "dataset": DATA,
}
FLAGS = [
    *("--epochs=3", "--batch-size=8", "--projection-dim=8"),
    *("--learning-rate=0.05", "--checkpoint-every=6"),
]
LOSSES = {
    "gathered": {},
    "siglip": {"loss": siglip_loss, "learned": {"temperature": 0.1, "bias": -1.0}},
}


def page(*flags, **handed):
    """A page of one's own."""
    pretrain("mine", **{**HANDED, **handed}, arguments=[*FLAGS, *flags])


begun = functools.partial(begin_page, page)


@pytest.fixture(scope="module")
def begun_once(tmp_path_factory):
    begun(folder := tmp_path_factory.mktemp("begun"))
    return folder


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """A page of one's own, up to its evaluation; returns its folder and losses."""
    monkeypatch.setattr(dual, "conclude", lambda *_, **__: None)

    def run(*flags, folder="run", **handed):
        page(f"--workdir={tmp_path / folder}", *flags, **handed)
        rows = read_metrics(tmp_path / folder / "metrics.jsonl")
        return tmp_path / folder, [row["loss"] for row in rows]

    return run


def test_a_run_leaves_what_one_of_a_flag_leaves(tmp_path, capsys):
    seen = []

    def noise(key, image):
        seen.append(image.shape)
        return gaussian_noise(key, image, std=0.1)

    settings = {"loss": clip_loss, "learned": {"temperature": 0.2}, "transform": noise}
    page(f"--workdir={tmp_path}", **settings)
    assert "training Small with Words, " in capsys.readouterr().out
    assert set(seen) == {(4, 4, 1)}
    scores = json.loads((tmp_path / "results.json").read_text())["scores"]
    assert list(scores) == ["trained", "untrained", "chance"]
    assert 0 <= scores["trained"]["text to image, recall@1"] <= 1
    figures = {path.name for path in (tmp_path / "figures").iterdir()}
    assert figures == {"loss.png", "similarity.png"}
    html = (tmp_path / "report.html").read_text()
    assert "<h1>mine on dots</h1>" in html
    assert "(for embeddings that carry no information)" in html
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert len({row["temperature"] for row in rows}) == len(rows) == 12
    page(f"--workdir={tmp_path}", **settings)
    assert "this run is finished" in capsys.readouterr().out


@pytest.mark.parametrize("loss", slow_unless(lambda loss: loss == "gathered", LOSSES))
def test_the_losses_are_those_of_one_device_on_two(trained, loss):
    (_, one), (_, two) = (
        trained(f"--num-devices={number}", folder=str(number), **LOSSES[loss]) for number in (1, 2)
    )
    assert len(one) == 12
    assert one[-1] < one[0]
    np.testing.assert_allclose(two, one, rtol=1e-4)


def test_a_run_that_was_stopped_ends_as_it_would_have(trained, capsys):
    folder, losses = trained()
    ended = load_newest(folder)
    shutil.rmtree(folder / "checkpoints" / str(ended[0]))
    assert trained() == (folder, losses)
    assert "resumed at step 6 of 12" in capsys.readouterr().out
    again = load_newest(folder)
    assert (again[0], state_hash(again[1])) == (12, state_hash(ended[1]))


def test_config_names_what_is_of_a_library_and_says_what_is_the_users(tmp_path):
    noise = functools.partial(gaussian_noise, std=0.1)
    handed = {"loss": clip_loss, "learned": {"temperature": 0.2}, "transform": noise}
    _, config = begun(tmp_path / "run", **handed)
    assert config["experiment"] == "mine"
    own = {name: said for name, said in config.items() if name.startswith("own_")}
    assert own == {
        "own_loss": "jaxcon.losses.softmax.clip_loss",
        "own_learned": "temperature=0.2",
        "own_image_encoder": "the user's own Small",
        "own_text_encoder": "the user's own Words",
        "own_transform": "jaxcon.augment.colours.gaussian_noise(std=0.1)",
        "own_dataset": "the user's own dots",
    }
    assert config["model"]["text"]["encoder"]["vocabulary"] == "300"
    assert config["model"]["image"]["dim"] == 8


def test_what_is_not_handed_over_is_that_of_the_flags(tmp_path):
    folder = tmp_path / "run"
    given, config = begun(folder, "--encoder=mlp", image_encoder=None, text_encoder=None)
    assert config["encoder"] == "mlp"
    assert not {"own_image_encoder", "own_text_encoder", "own_learned"} & config.keys()
    train(given)
    run = jaxcon.load_run(folder)
    assert run.embed_images(DATA.test.images.images).shape == (16, 8)
    assert run.embed_texts(["even 2"]).shape == (1, 8)


@pytest.mark.parametrize(
    ("flags", "handed", "said"),
    [
        ((), {"image_encoder": Small(5)}, "model.image.encoder.width"),
        ((), {"text_encoder": Words(301)}, "model.text.encoder.vocabulary"),
        ((), {"loss": gathered(lambda z1, z2: hinge(z1, z2))}, "own_loss"),
        (
            (),
            {"dataset": dataclasses.replace(DATA, train=pairs(32, 0, ("odd", "even")))},
            "other data",
        ),
        (("--encoder=mlp",), {}, "--encoder=mlp: the page passes in its own; leave it out"),
        (("--dataset=coco",), {}, "--dataset=coco: the page passes in its own"),
        ((), {"chance": 0.0}, "expected a loss above 0; pass chance="),
        (("--vocabulary=100",), {}, "--vocabulary=100: expected a number of at least 257"),
    ],
)
def test_one_line_for_what_cannot_go_on(begun_once, capsys, flags, handed, said):
    before, flags = content(begun_once), (f"--workdir={begun_once}", *flags)
    assert said in refused(lambda given: page(*given, **handed), flags, capsys)
    assert content(begun_once) == before


class Maps(nn.Module):
    @nn.compact
    def __call__(self, images, *, train):
        return nn.Conv(4, (3, 3))(images)


@pytest.mark.parametrize(
    ("handed", "said"),
    [
        ({"image_encoder": Maps()}, "image_encoder: expected features [batch, width], got [2, 4,"),
        ({"text_encoder": Words(260)}, "text_encoder: its output for token "),
        ({"learned": {"temperature": 20.0}, "loss": clip_loss}, "initial"),
    ],
)
def test_what_cannot_work_leaves_nothing_behind(capsys, tmp_path, handed, said):
    flags = (f"--workdir={tmp_path / 'run'}",)
    assert said in refused(lambda given: page(*given, **handed), flags, capsys)
    assert not (tmp_path / "run").exists()


def test_only_the_user_can_build_the_encoders_again(tmp_path):
    folder = tmp_path / "run"
    variables = train(begun(folder)[0])
    with pytest.raises(
        ValueError, match=r"its image is the user's own Small, .* networks=\{'image': Small"
    ):
        jaxcon.load_run(folder)
    with pytest.raises(ValueError, match=r"its text is the user's own Words"):
        jaxcon.load_run(folder, networks={"image": Small()})
    with pytest.raises(ValueError, match=r"its checkpoint and its config\.json disagree"):
        jaxcon.load_run(folder, networks={"image": Small(7), "text": Words()})
    run = jaxcon.load_run(folder, networks={"image": Small(), "text": Words()})
    pixels, params = DATA.test.images.images, variables["params"]["image"]
    z = Side(Small(), 8).apply({"params": params}, pixels / 255, train=False).z
    images = run.embed_images(pixels)
    np.testing.assert_allclose(images, z / np.linalg.norm(z, axis=1, keepdims=True), atol=1e-5)
    assert run.embed_texts(["odd 1", "even 2"]).shape == (2, 8)


def test_another_run_lends_its_weights_and_its_tokens(tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    weights = state_hash(train(begun(first)[0]))
    other = dataclasses.replace(DATA, train=pairs(32, 7, ("here", "there")))
    given, config = begun(second, f"--start-from={first}", dataset=other)
    assert config["start_from"]["weights"] == weights == state_hash(given["start"])
    files = [(folder / "tokenizer.json").read_bytes() for folder in (first, second)]
    assert files[0] == files[1]
    capsys.readouterr()
    flags = (f"--start-from={first}", f"--workdir={tmp_path / 'third'}")
    said = refused(lambda given: page(*given, image_encoder=Small(5)), flags, capsys)
    assert "trained another network: model.image.encoder.width was '4', is '5'" in said


@dataclasses.dataclass(frozen=True)
class Margin:
    margin: float = 0.2
    """By which a pair is nearer than others."""


@dataclasses.dataclass(frozen=True)
class Options:
    pairs: dual.Pairs = dataclasses.field(default_factory=dual.Pairs)
    loss: Margin = dataclasses.field(default_factory=Margin)
    training: Training = dataclasses.field(default_factory=Training)
    machine: Machine = dataclasses.field(default_factory=Machine)


def test_a_page_with_options_of_its_own_hands_over_a_method(capsys, tmp_path):
    def check(options):
        dual.check_options(options)
        check_range(options.loss, "margin", low=0)

    def objective(options):
        chance = options.loss.margin
        of_all = gathered(functools.partial(hinge, margin=chance))

        def loss(outputs):
            return of_all(outputs.image.z, outputs.text.z, axis_name="batch")

        return objectives.Objective(loss, {}, None, objectives.cosine, lambda batch: chance)

    def main(flags):
        method = dual.Method(
            command="hinge",
            title=lambda options: "Hinge",
            check=check,
            objective=objective,
            folder=lambda options: "hinge",
            load=lambda options: DATA,
        )
        flags = [f"--workdir={tmp_path / 'run'}", "--encoder=mlp", *FLAGS, *flags]
        dual.run(parse(Options, program="hinge", arguments=flags), method)

    begin(main, ["--margin=0.5"])
    assert json.loads((tmp_path / "run" / "config.json").read_text())["margin"] == 0.5
    capsys.readouterr()
    assert "margin was 0.5, is 0.2" in refused(main, [], capsys)
    assert "--margin=-1.0: expected a number above 0" in refused(main, ["--margin=-1"], capsys)
