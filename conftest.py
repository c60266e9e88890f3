"""Eight virtual CPU devices for every test, quick compilation, and a separate cache folder.

All are set before jax is first imported, and inherited by the processes that tests start.
"""

import atexit
import functools
import gc
import importlib.metadata
import os
import re
import shutil
import signal
import tempfile
import threading
from typing import Any

import pytest


def _jaxlib() -> tuple[int, ...]:
    return tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2]))


# Nearly all the time of the tests is compilation; what is compiled runs for milliseconds. Together
# these compile several times as fast as XLA's defaults. Whoever names an optimization level gets the
# defaults for the rest: XLA_FLAGS=--xla_backend_optimization_level=3 tests what people run, as CI does
# on a sample.
_QUICK = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
if _jaxlib() < (0, 11):  # jaxlib 0.11 has no such flag, and an unknown one ends the process
    _QUICK.append("--xla_cpu_use_fusion_emitters=false")
_GIVEN = os.environ.get("XLA_FLAGS", "")
_FLAGS = ["--xla_force_host_platform_device_count=8"]
if "--xla_backend_optimization_level" not in _GIVEN:
    _FLAGS += _QUICK
_FLAGS = [flag for flag in _FLAGS if flag.partition("=")[0] not in _GIVEN]
os.environ["XLA_FLAGS"] = " ".join([_GIVEN, *_FLAGS]).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")
if "XDG_CACHE_HOME" not in os.environ:
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="jaxcon-tests-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

# What a shell starts in the background ignores Ctrl-C, and so would all that the tests interrupt.
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    and threading.current_thread() is threading.main_thread()
):
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure() -> None:
    """Adds names that the tests use and that jax before 0.8 has elsewhere: losses run on 0.6.2 too."""
    import jax  # not before the environment is set

    if not hasattr(jax, "enable_x64"):
        from jax.experimental import enable_x64

        jax.enable_x64 = enable_x64
    if not hasattr(jax, "set_mesh"):
        jax.set_mesh = jax.sharding.use_mesh
    _share_mlir_context()
    jax.devices()  # all of them, before a command that a test runs in this process asks for fewer


def _share_mlir_context() -> None:
    """Lets all programs of a process share one context of MLIR.

    JAX makes one for each, 5 ms, and keeps it as long as the program, 1.2 MB: a quarter of what one
    eager operation costs, of which there are thousands. The name is not public: without it, every
    program has its own.
    """
    from jax._src.interpreters import mlir

    if hasattr(mlir, "make_ir_context"):
        mlir.make_ir_context = functools.cache(mlir.make_ir_context)


def pytest_collection_finish() -> None:
    """Keeps later garbage collections from walking the modules and tests: 8 % of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    """Gives one worker what shares fixtures or programs: a file, or the contract of one loss."""
    from xdist.scheduler import LoadScopeScheduling

    class ByPrograms(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            loss = re.search(r"\[.*?(\w+_loss)\b", test)
            return loss[1] if loss and "test_contract" in file else file

    return ByPrograms(config, log)
