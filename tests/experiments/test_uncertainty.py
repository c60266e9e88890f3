"""The study of uncertainty: its statistics, its pieces, its page; one run at the smallest size."""

import dataclasses
import fcntl
import json
import math
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from experiments import uncertainty
from experiments.pairs.captions import GRADE_WEIGHTS
from experiments.pairs.objectives import Outputs
from experiments.pairs.retrieval import rank_correlation
from experiments.running.process import jit_once
from experiments.uncertainty import main, write_results
from experiments.uncertainty_study import runs, statistics
from experiments.uncertainty_study.comparisons import (
    Stability,
    compare_seeds,
    compare_stability,
    intervals,
)
from experiments.uncertainty_study.losses import NAMES, make_objective
from experiments.uncertainty_study.pieces import (
    Piece,
    Protocol,
    choose_rate,
    estimate,
    load,
    overview,
    pieces,
    select,
    work,
)
from experiments.uncertainty_study.protocol import SIZES, protocol_text
from experiments.uncertainty_study.runs import Laboratory, gave_up, rankable, times_state
from experiments.uncertainty_study.statistics import (
    Interval,
    failure,
    interval,
    norm_variation,
    stability_of,
)
from jaxcon.data.captions import load_pairs
from jaxcon.data.shipped import scenes
from jaxcon.encoders.dual import Embedded
from jaxcon.losses import clip_loss, csd_loss
from jaxcon.training.devices import make_mesh
from jaxcon.training.optimizers import adamw, warmup_cosine
from tests.experiments.commands import refused

TINY = Protocol(
    ("clip", "gaussian", "gaussian-shared"),
    rates=(1e-3, 1e-2),
    batch_size=8,
    steps=40,
    seeds=(0, 1, 2),
    stability_rates=(1e-3, 1e-2),
    stability_batches=(4, 8),
    stability_steps=40,
)
COMPARISONS = uncertainty.COMPARISONS
RECALL = {"clip": 0.5, "gaussian": 0.6, "gaussian-shared": 0.4}


def found(recall):
    """Scores of this recall."""
    ways = ("image to text", "text to image")
    return {f"{way}, recall@{k}": recall for way in ways for k in (1, 5, 10)}


def measured(piece, rate, *, recall=None, grade=-0.6):
    """A record as a run would leave it; better at 1e-3, noisier with a higher seed."""
    recall = RECALL[piece.loss] if recall is None else recall
    recall += 0.01 * (piece.seed % 10) - (0.1 if rate > 1e-3 else 0)
    scores = found(recall) | {f"zero-shot {name}": 0.9 for name in ("shape", "colour")}
    told = {
        "text with grade": grade - 0.01 * piece.seed,
        "text with grade, from 2 on": -0.4,
        "image with number of objects": 0.2,
        "image with size of a single object": -0.1,
        "text mean": {"1": 0.5, "2": 0.1, "3": -0.1, "4": -0.5},
        "image mean": {"1": -0.1, "2": 0.0, "3": 0.1},
    }
    wobble = [1 + 0.1 * (step % 2) for step in range(piece.steps)]
    return {
        "device": "cpu",
        "chance_loss": 2.0,
        "warmup": 4,
        "loss": wobble,
        "gradient_norm": wobble,
        "skipped": 0,
        "scalars": dict.fromkeys(make_objective(piece.loss).scalars, 0.25),
        "verdict": "healthy: ...",
        "effective_rank": 20.0,
        "uniformity": -2.0,
        "scores": scores,
        "chance": dict.fromkeys(scores, 0.01),
        "deviations": told if piece.part == "seeds" and piece.loss == "gaussian" else None,
    }


def stored(piece, rate, **changes):
    """A record as it is read again."""
    return {"settings": piece.settings(rate), "seconds": 6.0, **measured(piece, rate), **changes}


def piece_of(records, part, loss):
    return next(piece for piece in records if (piece.part, piece.loss) == (part, loss))


def everything():
    return {p: stored(p, p.learning_rate or 1e-3) for p in pieces(TINY)}


# Statistics.


def test_the_interval_is_students():
    found = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    # 2.7764 is the table's value for four degrees of freedom; the deviation is the root of 2.5.
    assert found.mean == 3
    assert found.half == pytest.approx(2.7764 * math.sqrt(2.5) / math.sqrt(5), rel=1e-4)
    assert interval([7.0]) == Interval(7.0, None, 1)
    assert interval([]) is None


def test_rank_correlation_shares_ranks():
    values, groups = np.array([5.0, 1.0, 1.0, 4.0, 4.0]), np.array([1, 2, 2, 1, 3])
    # Ranks by hand: 5, 1.5, 1.5, 3.5, 3.5 and 1.5, 3.5, 3.5, 1.5, 5; both have mean 3.
    a, b = np.array([2, -1.5, -1.5, 0.5, 0.5]), np.array([-1.5, 0.5, 0.5, -1.5, 2])
    expected = (a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum())
    assert rank_correlation(values, groups) == pytest.approx(expected)
    assert rank_correlation(np.ones(3), np.arange(3)) == 0


def test_spikes_are_counted_where_they_begin():
    calm = [1.0, 1.2] * 10  # median 1.1, deviations 0.1: the threshold is 1.1 + 5 * 1.4826 * 0.1
    threshold = 1.1 + 5 * 0.14826
    below, above = threshold - 0.01, threshold + 0.01
    assert statistics.spikes([*calm, below], start=20) == 0
    assert statistics.spikes([*calm, above], start=20) == 1
    assert statistics.spikes([*calm, above, 9.0, 1.0, 1.2, 4.0], start=20) == 2
    assert statistics.spikes([*calm, above, 1.0], start=21) == 0
    assert statistics.spikes([*calm, None, None, 1.0], start=20) == 1
    assert statistics.spikes([1.0, 50.0], start=0) == 0  # nothing to compare with


def test_gradient_norms_are_compared_with_those_before():
    norms = [2.0] * 20
    found = norm_variation([*norms, 2 * math.e, 2 / math.e], start=20)
    assert found == pytest.approx(math.sqrt(2))  # of +1 and -1
    scaled = [1000 * norm for norm in (*norms, 2 * math.e, 2 / math.e)]
    assert norm_variation(scaled, start=20) == pytest.approx(found)
    assert norm_variation([*norms, 2.0, None, 0.0], start=20) is None


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, None),
        ({"skipped": 1}, "not finite"),
        ({"verdict": "not finite"}, "not finite"),
        ({"verdict": "complete collapse: all rows of z1 point the same way"}, "collapsed"),
        ({"verdict": "dimensional collapse: rows spread only over 3.0 of 7 directions"}, None),
        ({"loss": [9.0] * 36 + [1.97] * 4}, None),
        ({"loss": [1.0] * 36 + [1.99] * 4}, "at chance"),
        ({"loss": [None] * 40}, "at chance"),
        ({"loss": [10.0] + [5.0] * 39}, None),
        ({"loss": [10.0] + [9.1] * 39}, "at chance"),
        ({"loss": [10.0] + [5.0] * 39, "scores": found(0.041)}, None),
        ({"loss": [10.0] + [5.0] * 39, "scores": found(0.04)}, "at chance"),
        ({"loss": [10.0] + [1.9] * 39, "scores": found(0.01)}, None),
    ],
)
def test_how_a_run_fails(changes, kind):
    piece = pieces(TINY)[-1]
    assert failure(stored(piece, 1e-2, **changes)) == kind


def test_a_run_is_given_up_after_50_refused_updates_in_a_row():
    refused = list(range(1, 51))
    assert not gave_up(refused[:-1])
    assert gave_up(refused)
    assert not gave_up([*refused[:-1], 49])
    assert gave_up([0, 1, 1, *range(2, 52)])


@pytest.mark.parametrize(
    ("z", "log_std", "comparable"),
    [(1.0, 0.0, True), (np.nan, 0.0, False), (1e16, 0.0, False), (1.0, -41.0, False)],
)
def test_what_cannot_be_ranked_is_not(z, log_std, comparable):
    side = Embedded(np.array([[1.0, z]]), np.array([log_std]))
    assert rankable(side) == comparable


def test_stability_is_compared_in_the_same_settings():
    records = everything()
    settings = [p for p in records if p.part == "stability" and p.loss == "clip"]
    records[settings[0]] |= {"skipped": 3}
    noisy = [1 + 0.1 * (step % 2) + (step == 30) for step in range(40)]
    for piece in settings[1:]:
        records[piece] |= {"loss": noisy, "gradient_norm": noisy}
    found = compare_stability(records, "gaussian", "clip")
    assert (found.fewer, found.more, found.p, found.n) == (1, 0, 1.0, 4)
    assert found.spikes == Interval(pytest.approx(-100 / 36), pytest.approx(0), 3)
    assert found.variation.below
    assert found.answer == "more stable"
    mirrored = compare_stability(records, "clip", "gaussian")
    assert mirrored.answer == "less stable"
    assert (mirrored.fewer, mirrored.more) == (0, 1)
    same = compare_stability(records, "gaussian", "gaussian-shared")
    assert same.answer == "no difference shown"


def test_failures_alone_decide_when_there_are_enough():
    calm = Interval(0.0, 1.0, 3)
    # Six of six have a chance of 2 / 64 under the sign test, five of five 2 / 32.
    assert Stability(6, 0, 2 / 64, calm, calm, 12).answer == "more stable"
    assert Stability(0, 6, 2 / 64, calm, calm, 12).answer == "less stable"
    assert Stability(5, 0, 2 / 32, calm, None, 12).answer == "no difference shown"
    steady = Interval(-1.0, 0.5, 3)
    assert Stability(0, 1, 1.0, steady, steady, 12).answer == "no difference shown"


def test_differences_are_between_runs_of_one_seed():
    records = everything()
    found = compare_seeds(TINY, records, "gaussian", "clip", "recall@1")
    assert found == Interval(pytest.approx(0.1), pytest.approx(0, abs=1e-12), 3)
    means = intervals(TINY, records, "clip")
    assert means["recall@5"].mean == pytest.approx(0.51)
    assert means["recall@5"].half == pytest.approx(4.3027 * 0.01 / math.sqrt(3), rel=1e-4)
    assert "text with grade" not in means


def test_a_run_that_cannot_be_evaluated_scores_chance():
    piece = next(p for p in pieces(TINY) if p.part == "seeds")
    values = statistics.measures(stored(piece, 1e-3, scores=None))
    assert values["recall@1"] == values["zero-shot mean"] == pytest.approx(0.01)


# Losses.


def embedded(seed=0, n=6, dim=5):
    rng = np.random.default_rng(seed)
    z1, z2 = rng.normal(size=(2, n, dim)).astype(np.float32)
    k, l = rng.uniform(-0.5, 0.3, size=(2, n)).astype(np.float32)
    return Embedded(z1, k), Embedded(z2, l)


def loss_of(name, outputs):
    """The loss over two devices that share the rows; its scalars are on both."""
    loss = make_objective(name).loss
    mesh = make_mesh(jax.devices()[:2])
    specs = (PartitionSpec("batch"), PartitionSpec("batch"), PartitionSpec())
    shared = jax.shard_map(
        lambda *parts: loss(Outputs(*parts)), mesh=mesh, in_specs=specs, out_specs=PartitionSpec()
    )
    return float(jit_once(shared)(outputs.image, outputs.text, dict(outputs.scalars)))


def cross_entropy(logits):
    return np.mean([np.log(np.exp(row).sum()) - row[i] for i, row in enumerate(logits)])


def test_a_shared_deviation_is_a_temperature():
    image, text = embedded()
    squared = ((image.z[:, None] - text.z[None]) ** 2).sum(axis=2)
    logits = -squared / math.exp(2 * 0.3)
    expected = (cross_entropy(logits) + cross_entropy(logits.T)) / 2
    found = loss_of("gaussian-shared", Outputs(image, text, {"log_std": 0.3}))
    assert found == pytest.approx(expected, rel=1e-5)
    scores = make_objective("gaussian-shared").scores(image, text)
    np.testing.assert_allclose(scores, -squared, rtol=1e-4, atol=1e-5)


def test_exact_scores_are_what_the_exact_loss_compares():
    image, text = embedded()
    objective = make_objective("gaussian-exact")
    rows = np.asarray(objective.scores(image, text))
    columns = np.asarray(objective.scores(text, image))
    squared = ((image.z[0] - text.z[3]) ** 2).sum()
    assert rows[0, 3] == pytest.approx(
        -5 * text.log_std[3] - squared / (2 * math.exp(2 * text.log_std[3])), rel=1e-4
    )
    expected = (cross_entropy(rows) + cross_entropy(columns)) / 2
    assert loss_of("gaussian-exact", Outputs(image, text, {})) == pytest.approx(expected, rel=1e-4)


def test_the_added_term_is_that_of_clip():
    image, text = embedded()
    scalars = {"scale": 4.0, "shift": 3.0, "temperature": 0.2}

    @jit_once
    def added(image, text):
        deviating = (image.z, text.z, image.log_std, text.log_std)
        return 6 * csd_loss(*deviating, scale=4.0, shift=3.0) + clip_loss(
            image.z, text.z, temperature=0.2
        )

    expected = float(added(image, text))
    found = loss_of("csd-clip", Outputs(image, text, scalars))
    assert found == pytest.approx(expected, rel=1e-5)
    assert make_objective("csd-clip").chance(8) == pytest.approx(
        8 * math.log(8) - 7 * math.log(7) + math.log(8)
    )


@pytest.mark.parametrize("name", ["gaussian-shared", "gaussian-exact", "csd-clip"])
def test_added_losses_find_pairs_that_match(name):
    objective = make_objective(name)
    z = np.random.default_rng(0).normal(size=(16, 32)).astype(np.float32)
    log_std = np.full(16, objective.log_std or 0.0, np.float32)
    scores = np.asarray(objective.scores(Embedded(z, log_std), Embedded(z, log_std)))
    np.testing.assert_array_equal(scores.argmax(axis=1), np.arange(16))


def test_the_learning_rate_in_the_state_is_that_of_the_optimizer():
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    gradients = jax.tree.map(lambda leaf: 0.3 * leaf, params)
    settings = {"warmup_steps": 2, "total_steps": 5}
    plain = adamw(warmup_cosine(0.02, **settings), weight_decay=0.1)
    unit = adamw(warmup_cosine(1.0, **settings), weight_decay=0.1)
    scaled = optax.chain(unit, times_state())
    one, two = plain.init(params), scaled.init(params)
    two = (two[0], jnp.float32(0.02))
    update_plain, update_scaled = jit_once(plain.update), jit_once(scaled.update)
    for _ in range(3):
        expected, one = update_plain(gradients, one, params)
        found, two = update_scaled(gradients, two, params)
        for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(leaf, other, rtol=1e-5)


# Pieces.


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Runner:
    """Takes a second of a false clock for each pair; dies at a piece if it is told to."""

    def __init__(self, clock=None, dies_at=None):
        self.clock, self.dies_at, self.done = clock or Clock(), dies_at, []

    def __call__(self, piece, rate):
        self.clock.now += piece.batch_size * piece.steps
        if piece.name == self.dies_at:
            raise KeyboardInterrupt
        self.done.append((piece.name, rate))
        return measured(piece, rate)


def names(records):
    return [piece.name for piece in records]


def test_a_study_that_was_killed_goes_on(tmp_path):
    every = pieces(TINY)
    first = Runner(dies_at=every[8].name)
    with pytest.raises(KeyboardInterrupt):
        work(every, tmp_path, TINY, first, clock=first.clock)
    assert names(load(tmp_path, TINY)) == names(every[:8])
    assert len(list(tmp_path.iterdir())) == 8  # nothing half-made
    second = Runner()
    work(every, tmp_path, TINY, second, clock=second.clock)
    assert [name for name, _ in second.done] == names(every[8:])
    assert set(load(tmp_path, TINY)) == set(every)
    third = Runner()
    work(every, tmp_path, TINY, third, clock=third.clock)
    assert third.done == []


def test_compared_runs_take_the_rate_that_was_chosen(tmp_path):
    runner = Runner()
    work(pieces(TINY), tmp_path, TINY, runner, clock=runner.clock)
    assert {rate for name, rate in runner.done if name.startswith("seeds")} == {1e-3}
    records = load(tmp_path, TINY)
    for piece in [p for p in records if p.part == "rates" and p.loss == "clip"]:
        records[piece] |= {"scores": None}  # all at chance
    assert choose_rate(TINY, records, "clip") == 1e-3
    assert choose_rate(TINY, {}, "clip") is None


def test_compared_runs_wait_for_the_choice(tmp_path, capsys):
    runner = Runner()
    wanted = select(pieces(TINY), ["rates-clip-*", "seeds-clip-s0", "seeds-gaussian-s0"])
    work(wanted, tmp_path, TINY, runner, clock=runner.clock)
    assert [name for name, _ in runner.done][-1] == "seeds-clip-s0"
    assert "seeds-gaussian-s0: waits until every piece rates-gaussian-*" in capsys.readouterr().out


def test_the_budget_ends_between_pieces(tmp_path, capsys):
    runner = Runner()
    protocol = dataclasses.replace(TINY, pairs_per_second=1.0)
    every = pieces(protocol)
    # Each of the first pieces takes 8 * 40 seconds, as is assumed and then measured.
    work(every, tmp_path, protocol, runner, budget=1000, clock=runner.clock)
    assert names(load(tmp_path, protocol)) == names(every[:3])
    assert f"stopped before {every[3].name}" in capsys.readouterr().out


def test_two_processes_share_the_work(tmp_path):
    every = pieces(TINY)[:2]
    with (tmp_path / f".{every[0].name}.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        runner = Runner()
        work(every, tmp_path, TINY, runner, clock=runner.clock)
        assert [name for name, _ in runner.done] == [every[1].name]
    work(every, tmp_path, TINY, runner, clock=runner.clock)
    assert [name for name, _ in runner.done] == [every[1].name, every[0].name]
    assert len(list(tmp_path.iterdir())) == 2


def test_estimates_go_by_what_was_measured():
    every = pieces(TINY)
    small = next(p for p in every if p.batch_size == 4)
    protocol = dataclasses.replace(TINY, pairs_per_second=100.0)
    assert estimate(every[0], {}, protocol) == 8 * 40 / 100
    records = {
        every[0]: {"seconds": 10.0},
        every[1]: {"seconds": 20.0},
        every[2]: {"seconds": 60.0},
    }
    assert estimate(every[3], records, protocol) == pytest.approx(20)
    assert estimate(small, records, protocol) == pytest.approx(10)
    assert overview(every, records, protocol).startswith(f"{len(every) - 3} of {len(every)}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not the record of a run; delete it"),
        ("[1]", "not the record of a run"),
        ('{"settings": {"loss": "csd"}, "seconds": 1}', "made with {'loss': 'csd'}, the protocol"),
    ],
)
def test_a_file_that_does_not_belong_is_named(tmp_path, text, said):
    path = tmp_path / f"{pieces(TINY)[0].name}.json"
    path.write_text(text)
    with pytest.raises(ValueError) as raised:
        load(tmp_path, TINY)
    assert str(path) in str(raised.value)
    assert said in str(raised.value)


def test_a_compared_run_needs_the_runs_that_chose(tmp_path):
    runner = Runner()
    work(pieces(TINY), tmp_path, TINY, runner, clock=runner.clock)
    (tmp_path / f"{pieces(TINY)[0].name}.json").unlink()
    with pytest.raises(ValueError, match="these are gone"):
        load(tmp_path, TINY)


# Protocol and page.


def test_the_protocol_can_be_run_in_three_hours_and_keeps_its_seeds_apart():
    for protocol in SIZES.values():
        assert len(protocol.seeds) >= 5
        assert protocol.trial_seed not in protocol.seeds
        assert protocol.losses == NAMES
        assert len(set(names(pieces(protocol)))) == len(pieces(protocol))
    small = SIZES["small"]
    assert sum(estimate(piece, {}, small) for piece in pieces(small)) < 3 * 3600
    assert {"gaussian-shared", "clip"} == set(COMPARISONS["gaussian"])


def test_the_protocol_says_what_the_code_does():
    text = protocol_text(SIZES["small"])
    weights = " : ".join(f"{GRADE_WEIGHTS[grade]:g}" for grade in (1, 2, 3, 4))
    assert f"with the weights {weights} of grades" in text
    for name in NAMES:
        assert f"- **{name}**:" in text
        for start in make_objective(name).scalars.values():
            described = text.split(f"- **{name}**:")[1].split("\n- ")[0]
            assert f"{start:g}" in described or name == "csd-clip"


def test_the_committed_page_is_that_of_the_committed_records(tmp_path, monkeypatch):
    monkeypatch.setattr(uncertainty, "COMPARISONS", COMPARISONS)
    docs, small = pathlib.Path(__file__).parents[2] / "docs", SIZES["small"]
    (tmp_path / "uncertainty").mkdir()
    if (docs / "uncertainty" / "discussion.md").exists():
        shutil.copy(docs / "uncertainty" / "discussion.md", tmp_path / "uncertainty")
    records = load(docs / "uncertainty" / "pieces", small)
    write_results(tmp_path, "uncertainty", small, records)
    figures = {path.relative_to(docs) for path in (docs / "uncertainty").glob("*.svg")}
    assert figures == {path.relative_to(tmp_path) for path in tmp_path.glob("uncertainty/*.svg")}
    for name in ("uncertainty.md", "uncertainty/results.json", *figures):
        assert (docs / name).read_bytes() == (tmp_path / name).read_bytes()


def page(records, tmp_path):
    write_results(tmp_path, "study", TINY, records)
    return (tmp_path / "study.md").read_text()


@pytest.fixture(autouse=True)
def comparisons_of_few_losses(monkeypatch):
    monkeypatch.setattr(uncertainty, "COMPARISONS", {"gaussian": COMPARISONS["gaussian"]})


def test_the_page_without_results_shows_the_protocol(tmp_path):
    text = page({}, tmp_path)
    assert "No results yet: **0 of 27 runs are done.**" in text
    assert "Not yet: 27 runs are missing" in text
    assert "### How the answer is decided" in text
    assert "](" not in text
    assert json.loads((tmp_path / "study" / "results.json").read_text())["done"] == 0


def test_the_page_with_some_results_gives_no_answer(tmp_path):
    records = {
        p: r for p, r in everything().items() if p.part == "rates" or p.name == "seeds-clip-s0"
    }
    text = page(records, tmp_path)
    assert "**7 of 27 runs are done.**" in text
    assert "| loss | 0.001 | 0.01 | chosen |" in text
    assert "both ways (a random ranking: 1.0)" in text
    assert "| gaussian | 60.0 | 50.0 | 0.001, the lowest |" in text
    assert "| clip | 1 | 0 | 50.0 | 50.0 | 50.0 | 90.0 |" in text
    assert "| gaussian | 0 | 0 | – | – | – | – |" in text  # noqa: RUF001
    assert "Not yet: 20 runs are missing" in text
    assert "### Stability" not in text


def test_the_page_with_all_results_answers(tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "discussion.md").write_text("What surprised us.\n")
    text = page(everything(), tmp_path)
    assert "**27 of 27 runs are done.** They took 0.0 hours in all, 47 pairs a second" in text
    assert "| clip | temperature | 0.5 | 0.250 ± 0.000 |" in text
    assert "| gaussian | 3 | 0 | 61.0 ± 2.5 |" in text
    assert "1. Is training more stable? **no: no difference shown**" in text
    assert "2. Is the joint space better? **yes** (recall@1 against clip +10.0 ± 0.0" in text
    assert "3. Do general captions get the larger deviation? **yes**" in text
    assert "What surprised us." in text
    results = json.loads((tmp_path / "study" / "results.json").read_text())
    assert results["learning rates"] == dict.fromkeys(TINY.losses, 1e-3)
    assert results["differences of recall@1"]["gaussian - clip"]["mean"] == pytest.approx(0.1)
    for name in ("scores", "stability", "deviations"):
        assert f"](study/{name}.svg)" in text
    figures = {path: path.read_bytes() for path in (tmp_path / "study").glob("*.svg")}
    assert len(figures) == 3
    assert page(everything(), tmp_path) == text
    assert all(path.read_bytes() == drawn for path, drawn in figures.items())


def test_one_of_spikes_and_variation_decides_if_the_other_does_not_contradict():
    steady, calm, rough = (Interval(mean, 0.5, 3) for mean in (-1.0, 0.0, 1.0))
    answers = {
        (steady, calm): "more stable",
        (calm, steady): "more stable",
        (rough, None): "less stable",
        (steady, rough): "no difference shown",
        (calm, None): "no difference shown",
    }
    for (spikes, variation), answer in answers.items():
        found = Stability(0, 0, 1.0, spikes, variation, 12)
        assert found.answer == answer


def test_a_worse_space_and_no_correlation_are_told(tmp_path):
    records = everything()
    for piece in records:
        if piece.part == "seeds" and piece.loss == "gaussian":
            changes = measured(piece, 1e-3, recall=0.45, grade=0.02)
            records[piece] |= changes
    records[piece_of(records, "rates", "clip")] |= {"skipped": 1, "scores": None}
    records[piece_of(records, "seeds", "clip")] |= {"verdict": "complete collapse: all rows"}
    text = page(records, tmp_path)
    assert "| clip | 1.0 (not finite) | 40.0 | 0.01, the highest |" in text
    assert "| clip | 3 | 1 |" in text
    assert "2. Is the joint space better? **no: worse in a comparison**" in text
    assert "3. Do general captions get the larger deviation? **no**" in text


def test_runs_without_deviations_are_told(tmp_path):
    records = everything()
    seeded = [p for p in records if p.part == "seeds" and p.loss == "gaussian"]
    records[seeded[0]] |= {"deviations": None, "verdict": "not finite", "scores": None}
    assert " ± 0.06 (n = 2) |" in page(records, tmp_path)
    for piece in seeded:
        records[piece] |= {"deviations": None}
    assert "the larger deviation? **cannot be told**" in page(records, tmp_path)


# The command.


@pytest.fixture
def command(tmp_path, monkeypatch):
    """The command on the smallest protocol, with runs that take no time."""
    monkeypatch.setitem(SIZES, "small", TINY)
    monkeypatch.setattr(uncertainty, "load_pairs", lambda *_, **__: None)
    monkeypatch.setattr(uncertainty, "Laboratory", lambda *_: Runner())
    return lambda *flags: main([f"--output={tmp_path}", *flags])


def test_one_command_does_all(command, tmp_path, capsys):
    command("--dry-run")
    assert "27 of 27 pieces are left" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    command("--only", "rates-*")
    assert len(list((tmp_path / "uncertainty" / "pieces").iterdir())) == 6
    command("--budget-minutes=0")
    assert "(6 of 27 runs)" in capsys.readouterr().out
    command()
    assert "27 of 27 runs are done" in (tmp_path / "uncertainty.md").read_text()
    command("--dry-run")
    assert "0 of 27 pieces are left\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--only", "rates-clop-*"], "--only rates-clop-*: fits no piece; names look like rates-"),
        (["--budget-minutes=-1"], "--budget-minutes=-1.0: expected a number of at least 0"),
        (["--size=huge"], "huge"),
        (["--bugdet-minutes=3"], "did you mean --budget-minutes"),
    ],
)
def test_one_line_and_exit_code_2(command, flags, said, capsys):
    assert said in refused(lambda options: command(*options), flags, capsys)


# A run.


@pytest.mark.slow
def test_a_piece_from_end_to_end(tmp_path, monkeypatch):
    """Rates and seeds share what is compiled; the record is what statistics and page expect."""
    monkeypatch.setattr(scenes, "SPLITS", {"train": 64, "validation": 16, "test": 48})
    dataset = load_pairs("scenes", data_dir=tmp_path)
    traced = []
    make = make_objective

    def counting(name):
        objective = make(name)

        def loss(outputs):
            traced.append(name)
            return objective.loss(outputs)

        return objective._replace(loss=loss)

    monkeypatch.setattr(runs, "make_objective", counting)
    laboratory = Laboratory(dataset, jax.devices()[:1], encoder="mlp", vocabulary=300)
    first = laboratory(Piece("rates", "gaussian", 16, 12, 100, 1e-3), 1e-3)
    once = len(traced)
    other = laboratory(Piece("rates", "gaussian", 16, 12, 100, 1e-2), 1e-2)
    compared = Piece("seeds", "gaussian", 16, 12, 0)
    seeded = laboratory(compared, 1e-3)
    assert len(traced) == once
    assert len(first["loss"]) == len(first["gradient_norm"]) == 12
    assert first["loss"][0] == other["loss"][0]
    assert first["loss"][-1] != other["loss"][-1]
    assert seeded["loss"][0] != first["loss"][0]
    assert first["chance_loss"] == pytest.approx(math.log(16))
    assert first["deviations"] is None
    assert set(seeded["deviations"]["text mean"]) == {"1", "2", "3", "4"}
    again = laboratory(compared, 1e-3)
    assert again == seeded
    short = Piece("stability", "csd-clip", 16, 12, 100, 1e-3)
    wild = Piece("stability", "csd-clip", 16, 12, 100, 1e25)
    steady, wrecked = laboratory(short, 1e-3), laboratory(wild, 1e25)
    assert set(steady["scores"]) == set(found(0.0))
    assert steady["deviations"] is None
    assert set(steady["scalars"]) == {"temperature", "scale", "shift"}
    made = {compared: seeded, short: steady, wild: wrecked}
    records = {
        piece: {"settings": piece.settings(1e-3), "seconds": 1.0, **json.loads(json.dumps(record))}
        for piece, record in made.items()
    }
    measures = statistics.measures(records[compared])
    assert set(measures) >= {"recall@1", "zero-shot shape", "uniformity"}
    kinds = {p: stability_of(r).failure for p, r in records.items()}
    assert kinds[wild] == "not finite"
    assert kinds[short] != "not finite"
    protocol = Protocol(("gaussian", "csd-clip"))
    write_results(tmp_path, "study", protocol, records)
    assert " of 2 | 1 | 0 | " in (tmp_path / "study.md").read_text()  # one is not finite
