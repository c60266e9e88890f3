"""The loop: steps, progress, metrics and checkpoints, until the last step or a request to stop.

It never decides anything by time or by the machine, so a run that was killed and resumed does exactly
what an uninterrupted one does.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from tqdm import tqdm

from jaxcon.training._shared import check_count, check_number
from jaxcon.training.checkpoint import Checkpoints
from jaxcon.training.clock import Clock, InputWait
from jaxcon.training.metrics import MetricsLog
from jaxcon.training.state import TrainState

_WAIT_SHOWN = 0.01  # share of the time


class Fit(NamedTuple):
    """What `fit` returns: the state, and whether it is at the last step and was not asked to stop."""

    state: TrainState
    finished: bool


@contextlib.contextmanager
def stop_requested() -> Iterator[Callable[[int], bool]]:
    """Yields a function of the step that tells whether SIGTERM or Ctrl-C has asked the run to stop.

    With several processes, a signal to one stops all after the same step. Until the first step is done,
    Ctrl-C ends the process at once, as does a second Ctrl-C: compilation may take minutes.
    """
    several = jax.process_count() > 1
    event = threading.Event()
    before: dict[int, Any] = {}

    def set_handler(number: int, handler: Callable[..., Any]) -> None:
        if threading.current_thread() is threading.main_thread() and number not in before:
            before[number] = signal.signal(number, handler)

    def interrupted(*_: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()
        if several:  # jax waits for this signal in each process, and tells the others
            os.kill(os.getpid(), signal.SIGTERM)

    def asked(step: int) -> bool:
        set_handler(signal.SIGINT, interrupted)
        if several:
            from jax.experimental import multihost_utils

            return multihost_utils.reached_preemption_sync_point(step)
        return event.is_set()

    if not several:
        set_handler(signal.SIGTERM, lambda *_: event.set())
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def advance(
    state: Any,
    step: Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]],
    batches: Iterator[Any],
    *,
    start: int = 0,
    steps: int,
) -> Iterator[tuple[int, Any, dict[str, jax.Array]]]:
    """Takes one step after another; after each, yields how many are done, the state, the metrics.

    This is the loop of all training, and nothing else: `fit` adds a log, checkpoints and stops; a
    short run without a folder keeps the metrics itself. They are still on the device.

    Example:
      >>> double = lambda state, batch: (2 * state + batch, {})
      >>> [(done, state) for done, state, _ in advance(1, double, iter([0, 1, 0]), steps=2)]
      [(1, 2), (2, 5)]

    Args:
      state: the state before step `start`.
      step: `(state, batch) -> (state, metrics)`.
      batches: batches from that step on, at least one per step that is left.
      start: number of steps already done.
      steps: number of steps of the whole run.
    """
    for number in range(start, steps):
        state, metrics = step(state, next(batches))
        yield number + 1, state, metrics


def fit(
    state: TrainState,
    step: Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]],
    batches: Callable[[int], Iterator[Any]],
    *,
    steps: int,
    batch_size: int,
    chance: float,
    folder: Path,
    checkpoints: Checkpoints,
    checkpoint_every: int,
    log_every: int = 10,
    evaluate: Callable[[TrainState], Mapping[str, float]] | None = None,
    evaluate_every: int = 1,
) -> Fit:
    """Trains for `steps` steps, or until a stop is requested.

    Args:
      state: a state at any step; at step 0 it is saved first.
      step: `(state, batch) -> (state, metrics)`, with `loss` and `skipped` among the metrics.
      batches: maps a step number to the batches from there on.
      steps: number of steps of the whole run.
      batch_size: size over all devices together, at least 1, for the images per second.
      chance: loss at chance level, ln K, above 0; the bar shows loss / ln K.
      folder: for `metrics.jsonl`, `times.json` and `events/`.
      checkpoints: the open checkpoints of the run.
      checkpoint_every: steps between checkpoints, at least 1.
      log_every: steps between readings of the metrics, which wait for the device, at least 1. The
        first `log_every` are read one by one: they show whether it works, and how long it will
        take.
      evaluate: scores of a state, by names of their own, that are written with the metrics of the
        step that made it. Every process calls it. It must not change or keep the state.
      evaluate_every: steps between scores, at least 1; the last step always has some. A resumed
        run has those of an uninterrupted one.

    Returns:
      The state, and whether the run is finished.

    Raises:
      ValueError: if a number is out of its range.
      FloatingPointError: if none of the last 50 updates was finite.
      DiskFullError: if a checkpoint could not be written.
      Exception: whatever `batches` and `evaluate` raise; in a single process the state reached is
        saved first.
    """
    check_count("steps", steps, low=0)
    check_count("batch_size", batch_size)
    check_number("chance", chance, low=0, open_low=True)
    check_count("checkpoint_every", checkpoint_every)
    check_count("log_every", log_every)
    check_count("evaluate_every", evaluate_every)
    start = done = int(state.step)
    if start >= steps:
        return Fit(state, True)
    if start == 0:
        checkpoints.save(0, state)
        checkpoints.wait()
    main = jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        asked = stack.enter_context(stop_requested())
        log = stack.enter_context(MetricsLog(folder, start=start)) if main else None
        clock = Clock(folder / "times.json", start=start)
        bar = stack.enter_context(
            tqdm(
                desc="compiling",
                total=steps,
                initial=start,
                unit="step",
                disable=not main,
                mininterval=0.5,
            )
        )
        wait = InputWait()
        reader = _Reader(log, bar, wait, batch_size=batch_size, chance=chance)
        metrics: dict[str, Any] = {}

        def or_save() -> Iterator[Any]:
            """Yields the batches; if one cannot be had, saves the state reached."""
            source = batches(start)
            stack.callback(getattr(source, "close", lambda: None))  # readers end with the run
            while True:
                try:
                    batch = wait.take(source, metrics)
                except Exception:
                    if done > start and jax.process_count() == 1:
                        _save_reached(done, state, reader, checkpoints)
                    raise
                yield batch

        walk = advance(state, step, or_save(), start=start, steps=steps)
        for done, state, metrics in walk:
            stop = asked(done)
            if evaluate is not None and (done % evaluate_every == 0 or done == steps):
                try:
                    metrics = {**metrics, **evaluate(state)}
                except Exception:
                    reader.add(done - 1, metrics)
                    if jax.process_count() == 1:
                        _save_reached(done, state, reader, checkpoints)
                    raise
            reader.add(done - 1, metrics)
            saved = done % checkpoint_every == 0 or done == steps or stop
            # Metrics come before the checkpoint that a resumed run begins at.
            if saved or done % log_every == 0 or done - start <= log_every:
                reader.flush()
                clock.tick(done, wait.seconds)
            if saved:
                if main:
                    clock.save()
                checkpoints.save(done, state)
            if stop:
                break
        checkpoints.wait()
        # A signal after the last step stops what would follow it.
        stop = jax.process_count() == 1 and asked(done)
    return Fit(state, done == steps and not stop)


def _save_reached(
    done: int, state: TrainState, reader: "_Reader", checkpoints: Checkpoints
) -> None:
    """Saves before a data error ends the run; not with several processes, as others know nothing."""
    with contextlib.suppress(FloatingPointError):
        reader.flush()
    if done not in checkpoints.steps():
        checkpoints.save(done, state)
    checkpoints.wait()


class _Reader:
    """Collects metrics on the device and reads them together: one wait for many steps."""

    patience = 50

    def __init__(
        self, log: MetricsLog | None, bar: Any, wait: InputWait, *, batch_size: int, chance: float
    ):
        self._log, self._bar, self._batch_size, self._chance = log, bar, batch_size, chance
        self._wait = wait
        self._pending: list[tuple[int, Mapping[str, Any]]] = []
        self._skipped: int | None = None
        self._in_a_row = 0
        self._compiled = False

    def add(self, step: int, metrics: Mapping[str, Any]) -> None:
        self._pending.append((step, metrics))

    def flush(self) -> None:
        if not self._pending:
            return
        rows, self._pending = jax.device_get(self._pending), []
        share = self._wait.share()
        waited = {} if share is None else {"input_wait": share}  # of the time of all these steps
        values: dict[str, float] = {}
        for step, metrics in rows:
            values = {name: float(value) for name, value in metrics.items()}
            values["loss_over_chance"] = values["loss"] / self._chance
            values.update(waited)
            self._watch(step, int(values["skipped"]))
            if self._log is not None:
                self._log.write(step, values)
        self._show(len(rows), values)

    def _watch(self, step: int, skipped: int) -> None:
        before = skipped if self._skipped is None else self._skipped
        self._in_a_row = self._in_a_row + 1 if skipped > before else 0
        self._skipped = skipped
        if self._in_a_row >= self.patience:
            raise FloatingPointError(
                f"step {step}: none of the last {self.patience} updates was taken, because "
                "losses, gradients, weights or statistics were not finite; try a smaller "
                "--learning-rate, or --precision=f32"
            )

    def _show(self, count: int, values: dict[str, float]) -> None:
        bar = self._bar
        if self._compiled:
            bar.update(count)
        else:
            # The first step compiles: the time left is estimated from those after it.
            bar.set_description_str(refresh=False)
            bar.unpause()
            bar.initial = bar.n = bar.last_print_n = bar.n + count
            self._compiled = True
        rate = bar.format_dict["rate"]
        shown = {
            "loss": f"{values['loss']:.3f}",
            "loss/chance": f"{values['loss_over_chance']:.3f}",
        }
        if rate:
            shown["images/s"] = f"{rate * self._batch_size:,.0f}"
        if (share := values.get("input_wait", 0)) >= _WAIT_SHOWN:
            shown["waits for input"] = f"{share:.0%}"
        if values["skipped"]:
            shown["skipped"] = f"{values['skipped']:.0f}"
        bar.set_postfix(shown, refresh=count == 1)
