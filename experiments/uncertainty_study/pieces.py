"""A study in pieces: what has to be run, what has been run, and what comes next.

A piece is one training run, and one JSON file that appears when the run is done. A piece with a file
is not run again, so a study may be stopped at any time; several processes may work on one folder.

>>> [piece.name for piece in pieces(Protocol(losses=("clip",), rates=(1e-3,), seeds=(0, 1)))][:3]
['rates-clip-b128-lr0.001-s100', 'seeds-clip-s0', 'seeds-clip-s1']
"""

import contextlib
import dataclasses
import fcntl
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from experiments.running.process import say
from experiments.uncertainty_study.record import Record
from jaxcon.training.files import write_text

Part = Literal["rates", "seeds", "stability"]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The numbers that are fixed before the first run.

    Attributes:
      losses: names of the losses that are compared, as in `uncertainty_study.losses`.
      rates: learning rates to choose from, for each loss, on validation images.
      batch_size, steps: those of the runs that choose a rate, and of those that are compared.
      seeds: seeds of the runs that are compared.
      trial_seed: seed of the runs that choose a rate, and of those for stability; not one of `seeds`.
      stability_rates, stability_batches, stability_steps: a grid for each loss, one run per point.
      pairs_per_second: speed that the first estimate assumes; later ones use what was measured.
    """

    losses: tuple[str, ...]
    rates: tuple[float, ...] = (1e-3, 4e-3, 1.6e-2)
    batch_size: int = 128
    steps: int = 480
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    trial_seed: int = 100
    stability_rates: tuple[float, ...] = (1e-3, 4e-3, 1.6e-2, 6.4e-2)
    stability_batches: tuple[int, ...] = (32, 128, 256)
    stability_steps: int = 160
    pairs_per_second: float = 700.0


@dataclasses.dataclass(frozen=True)
class Piece:
    """One run; its learning rate is None if the runs of the part "rates" choose it."""

    part: Part
    loss: str
    batch_size: int
    steps: int
    seed: int
    learning_rate: float | None = None

    @property
    def name(self) -> str:
        """Name of its file, without the ending."""
        if self.learning_rate is None:
            return f"{self.part}-{self.loss}-s{self.seed}"
        rate = f"b{self.batch_size}-lr{self.learning_rate:g}"
        return f"{self.part}-{self.loss}-{rate}-s{self.seed}"

    def settings(self, rate: float) -> dict[str, Any]:
        """Returns the settings that its file records."""
        return {**dataclasses.asdict(self), "learning_rate": rate}


Runner = Callable[[Piece, float], Record]
Records = Mapping[Piece, Record]


def pieces(protocol: Protocol) -> list[Piece]:
    """Returns all pieces in running order: those that choose a rate, those compared, stability.

    Within a part, every loss comes once before any comes again, so that a study that is stopped
    early has equally many runs of each.
    """
    size = (protocol.batch_size, protocol.steps)
    trial, short = protocol.trial_seed, protocol.stability_steps
    rates = [
        Piece("rates", loss, *size, trial, rate)
        for rate in protocol.rates
        for loss in protocol.losses
    ]
    seeds = [
        Piece("seeds", loss, *size, seed) for seed in protocol.seeds for loss in protocol.losses
    ]
    stability = [
        Piece("stability", loss, batch, short, trial, rate)
        for batch in protocol.stability_batches
        for rate in protocol.stability_rates
        for loss in protocol.losses
    ]
    return rates + seeds + stability


def select(every: Sequence[Piece], patterns: Sequence[str]) -> list[Piece]:
    """Returns the pieces whose names match one of the patterns; without patterns, all.

    Example:
      >>> every = pieces(Protocol(losses=("clip", "csd")))
      >>> [piece.name for piece in select(every, ["seeds-*-s0"])]
      ['seeds-clip-s0', 'seeds-csd-s0']

    Args:
      every: the pieces to select from.
      patterns: patterns with `*` and `?`, for the whole name.

    Raises:
      ValueError: if no piece matches a pattern.
    """
    for pattern in patterns:
        if not any(fnmatchcase(piece.name, pattern) for piece in every):
            raise ValueError(
                f"--only {pattern}: matches no piece; names look like {every[0].name} (* and ? stand "
                "for what varies, --dry-run lists what is left)"
            )
    fits = (p for p in every if any(fnmatchcase(p.name, pattern) for pattern in patterns))
    return list(fits) if patterns else list(every)


def load(folder: Path, protocol: Protocol) -> dict[Piece, Record]:
    """Returns the records that are there.

    Raises:
      ValueError: if a file is not the record of its piece under this protocol.
    """
    records: dict[Piece, Record] = {}
    for piece in pieces(protocol):  # those that choose a rate come first
        path = folder / f"{piece.name}.json"
        if not path.exists():
            continue
        rate = piece.learning_rate or choose_rate(protocol, records, piece.loss)
        if rate is None:
            raise ValueError(
                f"{path}: made at a learning rate that the runs of the part rates chose, but these "
                "are gone; restore them, or delete this file too"
            )
        records[piece] = _read(path, piece.settings(rate))
    return records


def _read(path: Path, settings: Mapping[str, Any]) -> Record:
    broken = f"{path}: not the record of a run; delete it and run the piece again"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        made_with = content["settings"]
    except (json.JSONDecodeError, TypeError, KeyError):
        raise ValueError(broken) from None
    if made_with != settings:
        raise ValueError(
            f"{path}: made with {made_with}, the protocol says {settings}; delete the file and run "
            "the piece again"
        )
    try:
        return Record.from_json(content)
    except (KeyError, TypeError, AttributeError):
        raise ValueError(broken) from None


def choose_rate(protocol: Protocol, records: Records, loss: str) -> float | None:
    """Returns the learning rate with the best validation recall; None until all have been tried.

    Among equals the lower rate wins. Recall is recall@1, averaged over both ways.
    """
    tried = [p for p in pieces(protocol) if p.part == "rates" and p.loss == loss]
    if not all(piece in records for piece in tried):
        return None
    tried.sort(key=lambda piece: piece.learning_rate or 0)
    return max(tried, key=lambda piece: records[piece].scored.mean_recall()).learning_rate


def estimate(piece: Piece, records: Records, protocol: Protocol) -> float:
    """Returns how many seconds a piece will take, judging by the pieces that were run."""
    alike = [r.seconds / _pairs(p) for p, r in records.items() if _pairs(p) == _pairs(piece)]
    alike = alike or [r.seconds / _pairs(p) for p, r in records.items()]
    return _pairs(piece) * (statistics.median(alike) if alike else 1 / protocol.pairs_per_second)


def _pairs(piece: Piece) -> int:
    return piece.batch_size * piece.steps


def overview(wanted: Sequence[Piece], records: Records, protocol: Protocol) -> str:
    """Returns one line: how many pieces are left, and about how long they will take."""
    left = [piece for piece in wanted if piece not in records]
    hours = sum(estimate(piece, records, protocol) for piece in left) / 3600
    basis = "measured" if records else "assumed"
    speed = f"about {hours:.1f} hours at the {basis} speed"
    return f"{len(left)} of {len(wanted)} pieces are left" + (f", {speed}" if left else "")


def work(
    wanted: Sequence[Piece],
    folder: Path,
    protocol: Protocol,
    runner: Runner,
    *,
    budget: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Runs, in order, the pieces that have no file yet.

    Args:
      wanted: pieces of the protocol.
      folder: folder of their files.
      protocol: the protocol to which they belong.
      runner: maps a piece and its learning rate to its record; the seconds are filled in here.
      budget: in seconds; no piece is begun that would probably end later. None: no limit.
      clock: returns the time in seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = clock()
    for piece in wanted:
        with _claim(folder / f"{piece.name}.json") as mine:
            if not mine:
                continue
            records = load(folder, protocol)
            rate = piece.learning_rate or choose_rate(protocol, records, piece.loss)
            if rate is None:
                say(f"{piece.name}: waits until every piece rates-{piece.loss}-* is done")
                continue
            if budget is not None and clock() - start + estimate(piece, records, protocol) > budget:
                say(f"stopped before {piece.name}: it would end after the budget")
                return
            began = clock()
            record = runner(piece, rate)
            record = dataclasses.replace(record, seconds=round(clock() - began, 1))
            content = {"settings": piece.settings(rate), **record.as_json()}
            write_text(folder / f"{piece.name}.json", json.dumps(content) + "\n")
        records = load(folder, protocol)
        say(f"{piece.name}: {record.seconds:.0f} s; {overview(wanted, records, protocol)}")


@contextlib.contextmanager
def _claim(path: Path) -> Iterator[bool]:
    """Yields whether this process should make the file: nobody has, and nobody is making it.

    The lock is the kernel's: it ends with its process, however that ends.
    """
    if path.exists():
        yield False
        return
    lock = path.with_name(f".{path.stem}.lock")
    with lock.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield not path.exists()
        finally:
            lock.unlink(missing_ok=True)
