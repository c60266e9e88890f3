"""The work: in pieces, after kills, in several processes, within a budget."""

import dataclasses
import fcntl
import json

import pytest

from experiments.uncertainty_study.pieces import (
    choose_rate,
    estimate,
    load,
    overview,
    pieces,
    select,
    work,
)
from tests.experiments.uncertainty_study.records import (
    TINY,
    Runner,
    change,
    measured,
    names,
)


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
        change(records, piece, scores=None)  # all at chance
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
    seconds = zip(every, (10.0, 20.0, 60.0), strict=False)
    records = {piece: measured(piece, 1e-3, seconds=taken) for piece, taken in seconds}
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


def test_a_record_that_lacks_a_field_is_named(tmp_path):
    piece, runner = pieces(TINY)[0], Runner()
    work([piece], tmp_path, TINY, runner, clock=runner.clock)
    path = tmp_path / f"{piece.name}.json"
    content = json.loads(path.read_text())
    assert load(tmp_path, TINY)[piece].as_json().items() <= content.items()
    del content["chance"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="not the record of a run; delete it"):
        load(tmp_path, TINY)


def test_a_compared_run_needs_the_runs_that_chose(tmp_path):
    runner = Runner()
    work(pieces(TINY), tmp_path, TINY, runner, clock=runner.clock)
    (tmp_path / f"{pieces(TINY)[0].name}.json").unlink()
    with pytest.raises(ValueError, match="these are gone"):
        load(tmp_path, TINY)


# Protocol and page.
