"""Devices: what a run may use, decided once, before jax is first used.

>>> mesh = make_mesh(select_accelerator("auto"))
>>> mesh.axis_names
('batch',)
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcon.training import ranks

BATCH_AXIS = "batch"

Device = Any  # jax.Device is a variable, not a type, to type checkers
Accelerator = Literal["auto", "cpu", "gpu", "tpu"]

# "gpu" is cuda alone: jax's own alias also tries rocm and oneapi, and fails on those first.
_PLATFORMS = {"auto": None, "cpu": "cpu", "gpu": "cuda,cpu", "tpu": "tpu,cpu"}
_MOST = 512  # virtual devices; thousands take jax minutes to make
_INSTALL = {"gpu": "pip install 'jax[cuda13]'", "tpu": "pip install 'jax[tpu]'"}


def cluster_arguments(
    environ: Mapping[str, str] = os.environ, *, tpu_hosts: int = 1
) -> dict[str, Any] | None:
    """Returns what `jax.distributed.initialize` needs here; None outside a cluster.

    jax itself recognizes SLURM steps, Open MPI jobs and TPU pods, which need no arguments; anywhere
    else `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` are read.

    Example:
      >>> cluster_arguments({}) is None
      True
      >>> cluster_arguments({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"})
      {}

    Args:
      environ: environment variables.
      tpu_hosts: hosts of the TPU slice that this machine belongs to, as its metadata say.

    Returns:
      Keyword arguments, or None for a single process.

    Raises:
      ValueError: if a coordinator lacks its port or the two numbers, or a number of tasks is not a
        number.
    """
    if address := environ.get("JAX_COORDINATOR_ADDRESS"):
        numbers = {
            "num_processes": environ.get("JAX_NUM_PROCESSES", ""),
            "process_id": environ.get("JAX_PROCESS_ID", ""),
        }
        if not all(value.isdigit() for value in numbers.values()):
            raise ValueError(
                f"JAX_COORDINATOR_ADDRESS={address} is set: expected whole numbers in "
                f"JAX_NUM_PROCESSES and JAX_PROCESS_ID as well, got {list(numbers.values())}"
            )
        if not re.fullmatch(r".+:\d+", address):
            raise ValueError(f"JAX_COORDINATOR_ADDRESS={address}: expected HOST:PORT of process 0")
        return {"coordinator_address": address} | {k: int(v) for k, v in numbers.items()}
    several_hosts = tpu_hosts > 1 or "," in environ.get("TPU_WORKER_HOSTNAMES", "")
    return {} if several_hosts or _tasks(environ) > 1 else None


def check_gpus(environ: Mapping[str, str] = os.environ) -> None:
    """Raises a ValueError for a SLURM node on which GPUs would idle: jax gives a task one of them.

    Example:
      >>> check_gpus({"SLURM_GPUS_ON_NODE": "8", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"})
      Traceback (most recent call last):
      ValueError: SLURM_GPUS_ON_NODE=8: only 1 of them would be used, one for each task; ...

    Args:
      environ: environment variables of a job of several tasks.
    """
    gpus = environ.get("SLURM_GPUS_ON_NODE", "")
    tasks = re.match(r"\d+", environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    if not gpus.isdigit() or tasks is None or "JAX_LOCAL_DEVICE_IDS" in environ:
        return
    if int(gpus) > int(tasks[0]):
        every = ",".join(map(str, range(int(gpus))))
        raise ValueError(
            f"SLURM_GPUS_ON_NODE={gpus}: only {tasks[0]} of them would be used, one for each task; ask "
            f"for --ntasks-per-node={gpus}, or for one task a node set JAX_LOCAL_DEVICE_IDS={every}"
        )


def select_accelerator(
    name: Accelerator = "auto", *, num_devices: int | None = None
) -> list[Device]:
    """Returns the devices to train on: those of one platform, in jax's order.

    On CPU, this makes `num_devices` virtual devices, which is possible only before jax is first used.

    Example:
      >>> len(select_accelerator("cpu", num_devices=1))
      1

    Args:
      name: "auto" takes the best platform there is; any other means that platform or an error.
      num_devices: number over all processes, at least 1; None takes every device.

    Returns:
      The devices, at least one.

    Raises:
      ValueError: if there is no such accelerator, or fewer devices than requested.
    """
    if name not in _PLATFORMS:
        raise ValueError(f"accelerator: expected one of {', '.join(_PLATFORMS)}, got {name!r}")
    if num_devices is not None and num_devices < 1:
        raise ValueError(f"num_devices: expected at least 1, got {num_devices}")
    _configure(name, num_devices)
    devices = _devices(name)
    if num_devices is None:
        return devices
    if jax.process_count() > 1 and num_devices != len(devices):
        raise ValueError(
            f"num_devices: the {jax.process_count()} processes have {len(devices)} devices in all, "
            f"and all must take part; {num_devices} asked for: leave it out"
        )
    if num_devices > len(devices):
        raise ValueError(
            f"num_devices: {num_devices} asked for, but {devices[0].platform} has {len(devices)} "
            "here; ask for fewer, or leave it out to use all"
        )
    return devices[:num_devices]


def make_mesh(devices: Sequence[Device]) -> Mesh:
    """Returns the one-dimensional mesh whose axis is called "batch".

    Does not use `jax.make_mesh`: its axes are explicit by default, and on those `z @ z.T` raises.

    Example:
      >>> make_mesh(jax.devices()[:1]).shape["batch"]
      1

    Args:
      devices: at least one.

    Returns:
      The mesh.
    """
    return Mesh(np.array(devices), (BATCH_AXIS,))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Returns the tree with a copy of every leaf on each device of the mesh.

    Example:
      >>> replicate(np.ones(3), make_mesh(jax.devices())).is_fully_replicated
      True

    Args:
      tree: arrays; in several processes, the same in each.
      mesh: from `make_mesh`.

    Returns:
      Global arrays.
    """
    sharding = NamedSharding(mesh, PartitionSpec())

    def put(leaf: Any) -> jax.Array:
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(put, tree)


def fetch(tree: Any) -> Any:
    """Returns the tree on this host: copies of whole arrays, even if other hosts hold parts of them.

    Several processes must all call it, as their devices then exchange the parts, array by array.

    Example:
      >>> rows = jax.device_put(np.arange(8), batch_sharding(make_mesh(jax.devices())))
      >>> print(fetch({"rows": rows})["rows"])
      [0 1 2 3 4 5 6 7]

    Args:
      tree: arrays.

    Returns:
      Arrays of numpy.
    """

    def whole(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not (
            leaf.is_fully_addressable or leaf.is_fully_replicated
        ):
            from jax.experimental import multihost_utils

            leaf = multihost_utils.process_allgather(leaf, tiled=True)
        return np.array(leaf)

    return jax.tree.map(whole, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that distributes the rows of a batch over the devices of the mesh.

    Example:
      >>> batch_sharding(make_mesh(jax.devices())).spec == jax.sharding.PartitionSpec("batch")
      True

    Args:
      mesh: from `make_mesh`.

    Returns:
      The sharding; it fits arrays `[batch, ...]` if the devices divide the batch.
    """
    return NamedSharding(mesh, PartitionSpec(BATCH_AXIS))


def _configure(name: Accelerator, num_devices: int | None) -> None:
    if jax.distributed.is_initialized():
        return
    cluster = cluster_arguments(tpu_hosts=_tpu_hosts(name))
    wanted = 1 if num_devices is None else max(1, num_devices // _processes(cluster))
    try:
        if name != "auto":
            jax.config.update("jax_platforms", _PLATFORMS[name])
        if num_devices is not None:
            jax.config.update("jax_num_cpu_devices", min(wanted, _MOST))
    except RuntimeError:
        return  # jax is in use already: what it has is checked by the caller
    if wanted > _MOST:
        raise ValueError(
            f"num_devices: {wanted} asked for in one process; a CPU is divided into at most {_MOST}"
        )
    if cluster is not None:
        if name != "cpu":
            check_gpus()
        ranks.join(cluster)


def _tpu_hosts(name: Accelerator) -> int:
    """Returns on how many hosts the slice of this TPU VM is; 1 anywhere else.

    Kubernetes says so in the environment, TPU VMs of `gcloud compute tpus` only in their metadata.
    """
    platforms = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    if name != "tpu" and not (name == "auto" and "tpu" in (platforms or "")):
        return 1
    from jax._src import cloud_tpu_init  # neither has a public name
    from jax._src.clusters.cloud_tpu_cluster import GceTpuCluster

    if not cloud_tpu_init.running_in_cloud_tpu_vm:
        return 1
    return GceTpuCluster.get_process_count() if GceTpuCluster.is_env_present() else 1


def _tasks(environ: Mapping[str, str]) -> int:
    names = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
    values = {name: environ.get(name, "1") for name in names}
    for name, value in values.items():
        if not value.isdigit():
            raise ValueError(f"{name}={value} is set: expected a whole number; unset it")
    return max(int(value) for value in values.values())


def _processes(cluster: dict[str, Any] | None) -> int:
    return 1 if cluster is None else cluster.get("num_processes", _tasks(os.environ))


def _devices(name: Accelerator) -> list[Device]:
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:  # jax asserts where the plugin is missing
        raise ValueError(_missing(name, error)) from error
    if name != "auto" and devices[0].platform != name:
        raise ValueError(_missing(name))
    return devices


def _missing(name: Accelerator, error: Exception | None = None) -> str:
    if name != "auto":
        hint = f"; with the hardware at hand: {_INSTALL[name]}" if name in _INSTALL else ""
        return (
            f"accelerator: {name} asked for, but jax finds none here{hint} "
            "(--accelerator=auto takes the best there is)"
        )
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return (
            f"JAX_PLATFORMS={platforms} is set, but jax finds no such platform here; unset it, or set "
            "it to one that exists here, such as cpu"
        )
    variables = [name for name in os.environ if name.startswith(("JAX_", "XLA_"))]
    hint = f"; check the environment: {', '.join(variables)} is set" if variables else ""
    return f"jax finds no device here ({' '.join(str(error).split())[:200]}){hint}"
