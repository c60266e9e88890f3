"""Fresh interpreters, for what a process that already imported things cannot show."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# As if it were not installed: TFDS looks into sys.modules itself, so None there would not do.
NO_TENSORFLOW = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_others(name, *arguments):
    return None if name.split(".")[0] == "tensorflow" else find(name, *arguments)
PathFinder.find_spec = find_others
"""


def start(code: str, *, cache: Path, python: str = sys.executable) -> subprocess.Popen:
    """Starts `code` with `cache` as the user's cache folder."""
    return subprocess.Popen(
        [python, "-c", code],
        env={**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)},
        cwd=cache,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
