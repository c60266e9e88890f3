"""Devices: what was asked for, or a sentence."""

import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax._src import cloud_tpu_init
from jax._src.clusters import cloud_tpu_cluster

from jaxcon.training import devices
from jaxcon.training.devices import (
    batch_sharding,
    check_gpus,
    cluster_arguments,
    make_mesh,
    replicate,
    select_accelerator,
)


def python(code: str, **environ: str) -> subprocess.Popen:
    kept = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=kept | environ,
    )


def two_processes(code: str) -> list[str]:
    """The last lines of what two processes print that run the code together, over a local port."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        job = {
            "JAX_COORDINATOR_ADDRESS": f"localhost:{probe.getsockname()[1]}",
            "JAX_NUM_PROCESSES": "2",
        }
    lines = []
    for process in [python(code, **job, JAX_PROCESS_ID=str(number)) for number in range(2)]:
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        lines.append(out.splitlines()[-1])
    return lines


def test_auto_takes_what_there_is():
    assert select_accelerator("auto") == jax.devices()
    assert select_accelerator("cpu", num_devices=3) == jax.devices()[:3]


@pytest.mark.parametrize("name", ["gpu", "tpu"])
def test_a_missing_accelerator_is_an_error_and_never_a_cpu_run(name):
    if any(device.platform == name for device in jax.devices()):
        pytest.skip(f"there is a {name}")
    code = (
        "from jaxcon.training.devices import select_accelerator\n"
        f"try: print(select_accelerator({name!r}))\n"
        "except ValueError as error: print('refused:', error)"
    )
    out, _ = python(code).communicate(timeout=120)
    assert out.startswith(f"refused: accelerator: {name} asked for, but jax finds none here")
    with pytest.raises(ValueError, match=f"{name} asked for"):
        select_accelerator(name)


def test_a_cpu_is_divided_before_first_use():
    code = (
        "from jaxcon.training.devices import select_accelerator\n"
        "print(len(select_accelerator('cpu', num_devices=5)))"
    )
    out, err = python(code).communicate(timeout=120)
    assert out.strip() == "5", err


def test_more_devices_than_there_are():
    with pytest.raises(ValueError, match=r"num_devices: 1000 asked for, but cpu has \d+ here"):
        select_accelerator("cpu", num_devices=1000)


@pytest.mark.parametrize(("name", "number"), [("rocm", None), ("cpu", 0)])
def test_values_that_mean_nothing(name, number):
    with pytest.raises(ValueError, match="expected"):
        select_accelerator(name, num_devices=number)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"SLURM_STEP_NUM_TASKS": "2"}, {}),
        ({"OMPI_COMM_WORLD_SIZE": "8"}, {}),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, {}),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"},
            {"coordinator_address": "a:1", "num_processes": 2, "process_id": 1},
        ),
    ],
)
def test_clusters_are_told_by_their_environment(environ, expected):
    assert cluster_arguments(environ) == expected


WORKERS = {"agent-worker-number": "1", "worker-network-endpoints": "a:1:10.0.0.2,b:2:10.0.0.3"}


@pytest.mark.parametrize(
    ("name", "on_a_tpu_vm", "workers", "hosts"),
    [
        ("tpu", True, WORKERS, 2),
        ("tpu", True, {**WORKERS, "worker-network-endpoints": "a"}, 1),
        ("tpu", True, {}, 1),  # not one of gcloud's
        ("tpu", False, WORKERS, 1),
        ("auto", True, WORKERS, 1),  # here JAX_PLATFORMS=cpu is set
        ("cpu", True, WORKERS, 1),
    ],
)
def test_tpu_vms_are_told_by_their_metadata(monkeypatch, name, on_a_tpu_vm, workers, hosts):
    def metadata(key):
        known = {"tpu-env": "", **workers}
        return (known[key], 200) if key in known else ("", 404)

    monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)
    for module in (cloud_tpu_init, cloud_tpu_cluster):
        monkeypatch.setattr(module, "running_in_cloud_tpu_vm", on_a_tpu_vm)
    monkeypatch.setattr(cloud_tpu_cluster, "get_metadata", metadata)
    assert devices._tpu_hosts(name) == hosts
    assert cluster_arguments({}, tpu_hosts=hosts) == ({} if hosts > 1 else None)


@pytest.mark.parametrize(
    ("gpus", "tasks", "more", "said"),
    [
        ("8", "1(x2)", {}, "SLURM_GPUS_ON_NODE=8: only 1 of them would be used"),
        ("8", "4,2", {}, "only 4 of them would be used"),
        ("8", "8(x2)", {}, None),
        ("8", "1(x2)", {"JAX_LOCAL_DEVICE_IDS": "0,1,2,3,4,5,6,7"}, None),
        ("", "2", {}, None),
    ],
)
def test_gpus_that_would_idle_under_slurm(gpus, tasks, more, said):
    environ = {"SLURM_GPUS_ON_NODE": gpus, "SLURM_STEP_TASKS_PER_NODE": tasks, **more}
    if said is None:
        check_gpus(environ)
    else:
        with pytest.raises(ValueError, match=said):
            check_gpus(environ)


def test_half_a_coordinator_is_an_error():
    with pytest.raises(ValueError, match="JAX_NUM_PROCESSES"):
        cluster_arguments({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_PROCESS_ID": "0"})


def test_placement():
    mesh = make_mesh(jax.devices()[:4])
    rows = jax.device_put(np.arange(8), batch_sharding(mesh))
    assert [shard.data.tolist() for shard in rows.addressable_shards] == [
        [0, 1],
        [2, 3],
        [4, 5],
        [6, 7],
    ]
    copies = replicate({"w": np.ones(3)}, mesh)["w"].addressable_shards
    assert [shard.data.tolist() for shard in copies] == [[1.0, 1.0, 1.0]] * 4


@pytest.mark.exhaustive
def test_two_processes_train_like_one():
    """Two processes of two devices each, joined over a local port."""
    code = """
import json
from jaxcon.training.devices import *
from jaxcon.training.step import make_train_step, shard_step
from tests.training.toy import make_batch, make_loss, make_state
import jax
mesh = make_mesh(select_accelerator("cpu", num_devices=4))
step = shard_step(make_train_step(make_loss("batch")), mesh)
state, losses = replicate(make_state(), mesh), []
for number in range(5):
    batch = {
        name: jax.make_array_from_callback(v.shape, batch_sharding(mesh), lambda i, v=v: v[i])
        for name, v in make_batch(number).items()
    }
    state, metrics = step(state, batch, jax.random.key(7))
    losses.append(float(metrics["loss"]))
print(json.dumps([jax.process_count(), len(mesh.devices), losses]))
"""
    out, err = python(code).communicate(timeout=240)
    results = [json.loads(said) for said in (*two_processes(code), out or err)]
    assert [row[:2] for row in results] == [[2, 4], [2, 4], [1, 4]]
    assert results[0][2] == results[1][2]
    np.testing.assert_allclose(results[0][2], results[2][2], rtol=1e-5)
