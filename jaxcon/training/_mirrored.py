"""What checkpoints need besides if their folder mirrors one in an object store."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax
from orbax.checkpoint.options import MultiprocessingOptions

from jaxcon.stores import mirror_of
from jaxcon.training._coordinator import all_say


class Mirrored:
    """The way to the store and back; for a folder that is none's mirror, nothing of it happens.

    Every process has a mirror of its own, so that Orbax works in each as if it were alone. The first
    one writes.
    """

    def __init__(self, folder: Path):
        self._mirror = mirror_of(folder)
        if self._mirror is not None:
            folder.mkdir(exist_ok=True)
        # The disk to name if it is full: not the store, which it is mistaken for.
        self.disk = folder if self._mirror is None else self._mirror.disk
        self._thread = ThreadPoolExecutor(1)
        self._sending: Future[None] | None = None

    def __bool__(self) -> bool:
        return self._mirror is not None

    @property
    def writes(self) -> bool:
        """Whether this process writes what is saved, or takes part in it."""
        return self._mirror is None or jax.process_index() == 0

    def processes(self) -> MultiprocessingOptions:
        """Returns with which processes Orbax reads and writes."""
        me = jax.process_index()
        if self._mirror is None or jax.process_count() == 1:
            return MultiprocessingOptions()
        return MultiprocessingOptions(me, {me}, f"process{me}")

    def catch_up(self, reload: Callable[[], None]) -> None:
        """Waits until the first process has the folder, and sees what there is then.

        That may have waited for an earlier run to end, which wrote and swept meanwhile.
        """
        if self._mirror is not None and len(all_say("")) > 1 and jax.process_index() != 0:
            self._mirror.pull()
            reload()

    def send(self, wait: Callable[[], None]) -> None:
        """Sends what was saved, in the background, after `wait` returns."""
        if (mirror := self._mirror) is not None:

            def wait_and_push() -> None:
                wait()
                mirror.push()

            self._sending = self._thread.submit(wait_and_push)

    def wait(self) -> None:
        """Returns once all is sent; raises what `wait` did, or a StoreError, once."""
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.result()

    def fetch(self, step: int) -> None:
        """Copies a checkpoint from the store, unless it is here."""
        if self._mirror is not None:
            self._mirror.fetch(step)

    def set_aside(self, step: int) -> None:
        """Tells the store that a checkpoint is damaged."""
        if self._mirror is not None:
            self._mirror.set_aside(step)

    def check_alike(self, step: int | None) -> None:
        """Raises a ValueError if processes found different steps: each has read for itself."""
        steps = all_say(str(step)) if self._mirror is not None else []
        if len(set(steps)) > 1:
            raise ValueError(
                f"processes found different checkpoints intact, those of steps {', '.join(steps)}; run "
                "the same command in every process again"
            )
