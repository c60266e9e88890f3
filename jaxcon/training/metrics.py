"""The metrics of a run, one line per step: written so that a resumed run continues them, and read."""

import contextlib
import json
import math
from pathlib import Path
from typing import Any

from jaxcon.training.events import Events
from jaxcon.training.files import write_text


class MetricsLog:
    """`metrics.jsonl` and TensorBoard events of a run; a resumed run continues both.

    Example:
      >>> import tempfile
      >>> folder = tempfile.TemporaryDirectory()
      >>> with MetricsLog(Path(folder.name), start=0) as log:
      ...     log.write(0, {"loss": 2.5})
      >>> read_metrics(Path(folder.name) / "metrics.jsonl")
      [{'step': 0, 'loss': 2.5}]
    """

    def __init__(self, folder: Path, *, start: int):
        """Opens the files and drops entries at step `start` or later, which are computed again."""
        path = Path(folder) / "metrics.jsonl"
        before = [row for row in read_metrics(path) if row["step"] < start]
        write_text(path, "".join(json.dumps(row) + "\n" for row in before))
        self._file = path.open("a", buffering=1, encoding="utf-8")
        self._events = Events(Path(folder) / "events", start=start)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._events.close()

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Adds one line; a value that is not finite becomes null, as JSON has no NaN."""
        row = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        # TensorBoard would warn about any other.
        self._events.write(step, {k: v for k, v in metrics.items() if math.isfinite(v)})


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a `metrics.jsonl`; skips damaged ones, for example cut off by a kill.

    Example:
      >>> read_metrics(Path("no-such-file"))
      []

    Args:
      path: path of the file, which may be missing.

    Returns:
      One dictionary per step.
    """
    rows = []
    with contextlib.suppress(FileNotFoundError):
        for line in Path(path).read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict) and _is_sound(row)]


def _is_sound(row: dict[str, Any]) -> bool:
    step, loss = row.get("step"), row.get("loss", "missing")
    return isinstance(step, int) and isinstance(loss, int | float | None)
