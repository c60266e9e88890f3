"""Devices that a program can be compiled for where there are none.

The compilers for TPUs and for NVIDIA GPUs run on any machine: they make the very program that the
device would run, and tell its memory, its kernels, its collectives and, for TPUs, cycles. Those of
TPUs come with `pip install 'jax[tpu]'`; those of GPUs with
`pip install --no-deps jax-cuda13-plugin jax-cuda13-pjrt`, both in the version of jax.

Example:
    >>> import os
    >>> os.environ["JAX_PLATFORMS"] = "cpu"  # before jax is imported, as what `ENVIRONMENT` holds
    >>> CHIPS["v5e"].name
    'TPU v5e'
"""

import importlib.util
import os
import re
from typing import Any, NamedTuple

# A host that asks Google's servers what it is waits for minutes where there are none.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}

_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84978434048 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 12 }
runtime_version { major: 13 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


class Chip(NamedTuple):
    """A chip, as its vendor's data sheet describes it.

    Attributes:
      name: in words.
      platform: that of jax, `tpu` or `cuda`.
      smallest: the smallest topology that its compiler knows.
      clock: GHz; of a TPU, in whose cycles its compiler estimates.
      rate: TFLOP/s of bfloat16 products.
      bandwidth: TB/s of its memory.
      memory: GiB that a program may take: of a TPU what its compiler grants, of a GPU the three
        quarters that jax takes unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
    """

    name: str
    platform: str
    smallest: str
    clock: float
    rate: float
    bandwidth: float
    memory: float


CHIPS = {
    "v5e": Chip("TPU v5e", "tpu", "v5e:2x2", 1.5, 197, 0.82, 15.75),
    "v5p": Chip("TPU v5p", "tpu", "v5p:2x2x1", 1.75, 459, 2.77, 95.74),
    "v6e": Chip("TPU v6e", "tpu", "v6e:2x2", 1.75, 918, 1.64, 31.25),
    "h100": Chip("NVIDIA H100", "cuda", "h100:1", 1.98, 790, 3.35, 59.4),
}


def chip_of(topology: str) -> Chip:
    """Returns the chip of a topology, `v5e:4x4` say.

    Raises:
      ValueError: if none is known by that name.
    """
    name = topology.partition(":")[0]
    if name not in CHIPS:
        raise ValueError(f"topology must be of one of {', '.join(CHIPS)}, got {topology!r}")
    return CHIPS[name]


def missing(platform: str) -> str | None:
    """Returns the command that brings the compiler for a platform, or None if it is here."""
    if platform == "tpu":
        return None if importlib.util.find_spec("libtpu") else "pip install 'jax[tpu]'"
    found = importlib.util.find_spec("jax_plugins")
    here = found and any(
        name.startswith("xla_cuda")
        for place in found.submodule_search_locations or []
        for name in os.listdir(place)
    )
    return None if here else "pip install --no-deps jax-cuda13-plugin jax-cuda13-pjrt"


def devices(topology: str) -> list[Any]:
    """Returns the devices of a topology, to compile for.

    Args:
      topology: a chip's name, and of TPUs the shape of the slice (`v5e:4x4`), of GPUs their number on
        one host (`h100:8`) or hosts and GPUs of each (`h100:2x8`). The name alone is the smallest.

    Raises:
      ValueError: if there is no such chip or shape.
      ModuleNotFoundError: if the compiler is missing; the message says how to install it.
    """
    import jax
    from jax.experimental import topologies

    chip = chip_of(topology)
    shape = topology if ":" in topology else chip.smallest
    if command := missing(chip.platform):
        raise ModuleNotFoundError(
            f"to compile for {chip.name} takes its compiler: {command}, in the version of jax"
        )
    if chip.platform == "tpu":
        if absent := [name for name in ENVIRONMENT if name not in os.environ]:
            raise ValueError(
                f"set {', '.join(absent)} before jax is imported: "
                "os.environ.update(jaxcon.planning.topologies.ENVIRONMENT)"
            )
        try:
            described = topologies.get_topology_desc(platform="tpu", topology_name=shape)
        except jax.errors.JaxRuntimeError as error:
            said = str(error).splitlines()[0][:120]
            raise ValueError(
                f"topology: expected a slice of {chip.name} that its compiler knows, such as "
                f"{chip.smallest}, got {topology!r} ({said})"
            ) from error
        return list(described.devices)
    numbers = re.fullmatch(r"h100:(?:([1-9]\d*)x)?([1-9]\d*)", shape)
    if not numbers:
        raise ValueError(f"topology must be h100:NUMBER or h100:HOSTSxNUMBER, got {topology!r}")
    described = topologies.get_topology_desc(
        platform="cuda",
        topology_name="h100",
        topology=f"{numbers[1] or 1}x1x{numbers[2]}",
        target_config=_H100,
    )
    return list(described.devices)
