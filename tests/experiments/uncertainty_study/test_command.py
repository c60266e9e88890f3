"""The command, and one run at the smallest size."""

import json
import math

import jax
import pytest

from experiments import uncertainty
from experiments.uncertainty import main, write_results
from experiments.uncertainty_study import runs, statistics
from experiments.uncertainty_study.losses import make_objective
from experiments.uncertainty_study.pieces import (
    Piece,
    Protocol,
)
from experiments.uncertainty_study.protocol import SIZES
from experiments.uncertainty_study.record import Record
from experiments.uncertainty_study.runs import Laboratory
from experiments.uncertainty_study.statistics import (
    stability_of,
)
from jaxcon.data.captions import load_pairs
from jaxcon.data.shipped import scenes
from tests.experiments.commands import refused
from tests.experiments.uncertainty_study.records import TINY, Runner, found


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
        (
            ["--only", "rates-clop-*"],
            "--only rates-clop-*: matches no piece; names look like rates-",
        ),
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
    assert len(first.loss) == len(first.gradient_norm) == 12
    assert first.loss[0] == other.loss[0]
    assert first.loss[-1] != other.loss[-1]
    assert seeded.loss[0] != first.loss[0]
    assert first.chance_loss == pytest.approx(math.log(16))
    assert first.deviations is None
    assert set(seeded.deviations.by_grade) == {"1", "2", "3", "4"}
    again = laboratory(compared, 1e-3)
    assert again == seeded
    short = Piece("stability", "csd-clip", 16, 12, 100, 1e-3)
    wild = Piece("stability", "csd-clip", 16, 12, 100, 1e25)
    steady, wrecked = laboratory(short, 1e-3), laboratory(wild, 1e25)
    assert set(steady.scores.as_json()) == set(found(0.0).as_json())
    assert steady.deviations is None
    assert set(steady.scalars) == {"temperature", "scale", "shift"}
    made = {compared: seeded, short: steady, wild: wrecked}
    records = {
        piece: Record.from_json(json.loads(json.dumps(record.as_json())))
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
