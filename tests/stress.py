"""The promises of a run under kills, stops and damage; few in CI, as many as one likes here.

    python -m tests.stress          # 100 kills, 10 kills and 2 stops of one of two, 200 damages
    python -m tests.stress --kills=0 --damages=0 --rank-kills=3 --stops=1

Every line says what was done and what was found; the first broken promise ends it with a traceback.
"""

import argparse
import dataclasses
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxcon.training.checkpoint import load_newest
from jaxcon.training.digests import state_hash
from jaxcon.training.workdir import saved_steps
from tests.training.damage import damage

LIMIT = 15.0  # seconds after which the other processes are gone
_RUN = """
from experiments import simclr
from experiments.images import two_views
from experiments.running import console
console.install()
two_views.conclude = lambda *_, **__: None  # it is the parameters that are compared
simclr.main()
"""


@dataclasses.dataclass
class Runs:
    """The processes of one run of digits, in one folder."""

    folder: Path
    ranks: int = 1
    epochs: int = 50  # of 4 steps

    def start(self) -> list[subprocess.Popen]:
        """All ranks; their consoles go into files beside the folder."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
        cache = {"JAX_COMPILATION_CACHE_DIR": str(self.folder.parent / "compiled")}
        quick = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PLATFORMS": "cpu"}
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            address = f"localhost:{probe.getsockname()[1]}"
        processes = []
        for rank in range(self.ranks):
            job = {
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": str(self.ranks),
                "JAX_PROCESS_ID": str(rank),
            }
            with self.console(rank).open("w") as console:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-c", _RUN, *self.flags()],
                        env=kept | cache | quick | (job if self.ranks > 1 else {}),
                        stdout=console,
                        stderr=subprocess.STDOUT,
                    )
                )
        return processes

    def flags(self) -> list[str]:
        run = [f"--workdir={self.folder}", f"--epochs={self.epochs}", "--checkpoint-every=2"]
        return [*run, "--accelerator=cpu"]

    def console(self, rank: int) -> Path:
        return self.folder.with_name(f"{self.folder.name}-{rank}.txt")

    def last_line(self, rank: int) -> str:
        return self.console(rank).read_text().rstrip().splitlines()[-1]

    def finish(self) -> str:
        """The hash of the parameters and statistics after the last step."""
        processes = self.start()
        for process in processes:
            assert process.wait(timeout=600) == 0, self.console(0).read_text()
        step, variables = load_newest(self.folder)
        assert step == 4 * self.epochs
        return state_hash(variables)

    def saving(self) -> bool:
        """Whether a checkpoint is half written just now."""
        return any((self.folder / "checkpoints").glob("*.orbax-checkpoint-tmp"))

    def steps(self) -> int:
        return max(saved_steps(self.folder / "checkpoints"), default=0)


def kill_one(
    folder: Path, *, kills: int, in_save: int, seed: int = 0, tell: Callable[[str], Any] = len
) -> str:
    """SIGKILL a run at random moments, at least `in_save` of them in a save, and let it end.

    Raises:
      AssertionError: it ends with other parameters than a run that nobody kills.
    """
    expected = Runs(folder / "whole").finish()
    moments, rounds, done, saves, begun = random.Random(seed), 0, 0, 0, 0
    while done < kills:
        rounds += 1
        run = Runs(folder / f"killed{rounds}")
        while done < kills and run.steps() < 180:
            (process,) = run.start()
            begun += 1
            needed = in_save - saves >= kills - done
            _wait_to_kill(process, run, moments, in_save=needed or moments.random() < 0.6)
            process.kill()
            process.wait()
            done, saves = done + 1, saves + run.saving()
        assert run.finish() == expected, f"round {rounds}"
        tell(f"... {done} kills, {saves} of them in a save, in {rounds} runs\n")
        shutil.rmtree(run.folder)
    assert saves >= in_save, f"{saves} of {done} kills were in a save"
    return f"{done} kills, {saves} of them in a save, in {rounds} runs: the same parameters"


def _wait_to_kill(
    process: subprocess.Popen, run: Runs, moments: random.Random, *, in_save: bool
) -> None:
    """Until a random moment: of a save (any from the first to the tenth), or of the whole life."""
    before, deadline = run.steps(), time.monotonic() + 120
    if not in_save:
        deadline = time.monotonic() + moments.uniform(0, 8)
    after = before + 2 * moments.randrange(10)
    while process.poll() is None and time.monotonic() < deadline:
        if in_save and run.steps() >= after and run.saving():
            time.sleep(moments.uniform(0, 0.03))
            if run.saving():
                return
        time.sleep(0.002)


def stop_ranks(folder: Path, *, kills: int, stops: int, seed: int = 0) -> str:
    """SIGKILL or SIGSTOP one of two processes at random moments, and start both again.

    Raises:
      AssertionError: the other is there after `LIMIT` seconds, its last line does not say who is
          gone, or the run ends with other parameters than one that nobody stops.
    """
    expected = Runs(folder / "whole2", ranks=2).finish()
    run, moments, longest = Runs(folder / "stopped", ranks=2), random.Random(seed), 0.0
    numbers = [signal.SIGKILL] * kills + [signal.SIGSTOP] * stops
    moments.shuffle(numbers)
    for count, number in enumerate(numbers):
        processes = run.start()
        hit = count % 2
        _wait_for_ranks(processes, run, moments)
        processes[hit].send_signal(number)
        start = time.monotonic()
        try:
            code = processes[1 - hit].wait(timeout=LIMIT)
        finally:
            for process in processes:
                process.kill()
                process.wait()
        longest = max(longest, time.monotonic() - start)
        assert code not in (0, -signal.SIGKILL), code
        last = run.last_line(1 - hit)
        assert last.startswith(f"error: process {hit} of 2 is gone"), last
        assert "to resume from the last checkpoint" in last
    assert run.finish() == expected
    told = f"{kills} kills and {stops} stops of one of two processes"
    return f"{told}: the other gone after {longest:.1f} s at most, the same parameters"


def _wait_for_ranks(processes: list[subprocess.Popen], run: Runs, moments: random.Random) -> None:
    """Until both train, and some steps more."""
    after, deadline = run.steps() + 2 * moments.randrange(1, 6), time.monotonic() + 240
    while run.steps() < after and time.monotonic() < deadline:
        assert all(process.poll() is None for process in processes), run.console(0).read_text()
        time.sleep(0.01)
    time.sleep(moments.uniform(0, 0.3))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name, default in (
        ("kills", 100),
        ("in-save", 40),
        ("rank-kills", 10),
        ("stops", 2),
        ("damages", 200),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # as commands have it
    for line in run_all(given):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def run_all(given: argparse.Namespace) -> Iterator[str]:
    from tests.training.toy import save_toys

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.damages:
            template, hashes = save_toys(folder / "toys")
            yield damage(folder / "toys", template, hashes, number=given.damages, seed=given.seed)
        if given.rank_kills or given.stops:
            yield stop_ranks(folder, kills=given.rank_kills, stops=given.stops, seed=given.seed)
        if given.kills:
            settings = {"kills": given.kills, "in_save": given.in_save, "seed": given.seed}
            yield kill_one(folder, **settings, tell=sys.stderr.write)


if __name__ == "__main__":
    main()
