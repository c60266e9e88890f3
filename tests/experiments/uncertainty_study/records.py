"""Records of runs that were never made, as a study of them would hold."""

import dataclasses

from experiments import uncertainty
from experiments.pairs.scores import Scores
from experiments.uncertainty_study.losses import make_objective
from experiments.uncertainty_study.pieces import Protocol, pieces
from experiments.uncertainty_study.record import Deviations, Record

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


def found(recall, zero_shot=None):
    """Scores of this recall."""
    shares = dict.fromkeys((1, 5, 10), recall)
    return Scores(shares, shares, zero_shot or {})


def measured(piece, rate, *, recall=None, grade=-0.6, **changes):
    """A record as a run would leave it; better at 1e-3, noisier with a higher seed."""
    recall = RECALL[piece.loss] if recall is None else recall
    recall += 0.01 * (piece.seed % 10) - (0.1 if rate > 1e-3 else 0)
    attributes = ("shape", "colour")
    deviations = Deviations(
        grade=grade - 0.01 * piece.seed,
        grade_from_2=-0.4,
        objects=0.2,
        size=-0.1,
        by_grade={"1": 0.5, "2": 0.1, "3": -0.1, "4": -0.5},
        by_objects={"1": -0.1, "2": 0.0, "3": 0.1},
    )
    wobble = [1 + 0.1 * (step % 2) for step in range(piece.steps)]
    record = Record(
        device="cpu",
        chance_loss=2.0,
        warmup=4,
        loss=wobble,
        gradient_norm=wobble,
        skipped=0,
        scalars=dict.fromkeys(make_objective(piece.loss).scalars, 0.25),
        scores=found(recall, dict.fromkeys(attributes, 0.9)),
        deviations=deviations if piece.part == "seeds" and piece.loss == "gaussian" else None,
        verdict="healthy: ...",
        effective_rank=20.0,
        uniformity=-2.0,
        chance=found(0.01, dict.fromkeys(attributes, 0.01)),
        seconds=6.0,
    )
    return dataclasses.replace(record, **changes)


def change(records, piece, **changes):
    """Put other values into a record."""
    records[piece] = dataclasses.replace(records[piece], **changes)


def piece_of(records, part, loss):
    return next(piece for piece in records if (piece.part, piece.loss) == (part, loss))


def everything():
    return {p: measured(p, p.learning_rate or 1e-3) for p in pieces(TINY)}


def names(records):
    return [piece.name for piece in records]


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
