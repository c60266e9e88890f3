"""A state in shards: the steps of a whole one, in a fraction of its memory on each device."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from jaxcon import collectives
from jaxcon.encoders import ViT, resnet18
from jaxcon.planning.memory import memory_of
from jaxcon.planning.topologies import ENVIRONMENT, missing
from jaxcon.planning.traffic import traffic
from jaxcon.training.cached import cached_value_and_grad
from jaxcon.training.devices import batch_sharding, make_mesh, replicate
from jaxcon.training.digests import state_bytes, state_leaves
from jaxcon.training.optimizers import adamw, lars, warmup_cosine
from jaxcon.training.sharded import bytes_on_a_device, make_sharded_step, state_sharding
from jaxcon.training.state import create_state
from jaxcon.training.step import make_train_step, shard_step
from tests.marks import slow_unless
from tests.training.test_devices import python, two_processes
from tests.training.toy import BUILDS, make_batch, make_loss, make_state

KEY = jax.random.key(7)


def whole(state, loss_fn, devices=1, **settings):
    """State and step of the plain form."""
    mesh = make_mesh(jax.devices()[:devices])
    return replicate(state, mesh), shard_step(make_train_step(loss_fn, **settings), mesh), mesh


def shards(state, loss_fn, devices=4, **settings):
    """State and step in shards, however small the arrays are."""
    mesh = make_mesh(jax.devices()[:devices])
    shardings = state_sharding(state, mesh, at_least=1)
    return jax.device_put(state, shardings), make_sharded_step(loss_fn, shardings, **settings), mesh


def train(state, step, mesh, batches):
    """The metrics of each step, and the state after the last."""
    told = []
    for batch in batches:
        state, metrics = step(state, jax.device_put(batch, batch_sharding(mesh)), KEY)
        told.append(jax.device_get(metrics))
    return told, jax.device_get(state)


def assert_alike(one, other, rounding=1e-4):
    """But for rounding, which is small beside the norm of an array."""
    for (name, a), (_, b) in zip(*(state_leaves(s).items() for s in (one, other)), strict=True):
        assert a.dtype == b.dtype, name
        gap = np.linalg.norm(np.float64(a) - np.float64(b))
        assert gap <= rounding * max(1e-2, np.linalg.norm(np.float64(b))), name


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((8, 24), (None, "batch")),
        ((24, 24), ("batch",)),
        ((3, 3, 16, 16), (None, None, "batch")),
        ((4, 25), ("batch",)),  # the largest is not divided
        ((7, 9), ()),
        ((2, 4), ()),  # too small
        ((), ()),
    ],
)
def test_an_array_is_divided_along_the_largest_dimension_that_can_be(shape, spec):
    mesh = AbstractMesh((4,), ("batch",))
    leaf = jax.ShapeDtypeStruct(shape, jnp.float32)
    assert state_sharding(leaf, mesh, at_least=9).spec == P(*spec)


def test_one_device_has_nothing_to_divide():
    mesh = make_mesh(jax.devices()[:1])
    assert {s.spec for s in jax.tree.leaves(state_sharding(make_state(), mesh, at_least=1))} == {
        P()
    }


QUICK = [(lars, 4)]  # weight decay, momentum and norms of whole arrays


@pytest.mark.parametrize(
    "case",
    slow_unless(QUICK.__contains__, [(build, n) for build in BUILDS for n in (1, 4)]),
    ids=lambda case: f"{case[0].__name__}-{case[1]}",
)
def test_steps_are_those_of_a_whole_state(case):
    """With batch statistics, a moving average, a schedule, clipping, and an update that is refused."""
    build, devices = case
    schedule = warmup_cosine(0.1, warmup_steps=2, total_steps=6)
    batches = [make_batch(number) for number in range(6)]
    batches[2]["x"] = np.where(np.arange(16)[:, None] == 3, np.nan, batches[2]["x"])

    def run(form, count):
        state = make_state(build(schedule, weight_decay=0.1, clip_norm=0.5), average=True)
        return train(*form(state, make_loss("batch"), count, ema_decay=0.9), batches)

    (told, state), (expected, other) = run(shards, devices), run(whole, 1)
    for metrics, theirs in zip(told, expected, strict=True):
        assert metrics.keys() == theirs.keys()
        for name in ("loss", "gradient_norm", "skipped"):
            np.testing.assert_allclose(metrics[name], theirs[name], rtol=1e-4, err_msg=name)
    assert int(state.skipped) == 1
    assert_alike(state, other)


def of_a_queue():
    """A loss against a queue, with a teacher; the same in chunks; variables; batches; chunks traced."""
    traced = []

    def encode(params, chunk, _):
        return chunk["x"] @ params["w"]

    def finish(params, z, carried):
        teacher = 0.9 * carried["teacher"]["w"] + 0.1 * params["w"]
        centre = collectives.mean(jnp.mean(z, axis=0), "batch")
        rows = jnp.roll(carried["queue"]["rows"], 1, axis=0).at[0].set(centre)
        cosines = z @ carried["queue"]["rows"].T * jnp.exp(params["scale"])
        loss = collectives.mean(jnp.mean(jax.nn.logsumexp(cosines, axis=1)), "batch")
        loss += jnp.mean((params["w"] - teacher) ** 2)
        return loss, ({"teacher": {"w": teacher}, "queue": {"rows": rows}}, {})

    def value_and_grad(params, carried, batch, key):
        del key
        traced.append(1)
        cached = cached_value_and_grad(
            encode, lambda p, z: finish(p, z, carried), chunk_size=1, has_aux=True
        )
        return cached(params, batch)

    def loss_fn(params, carried, batch, key):
        del key
        return finish(params, encode(params, batch, None), carried)

    rng = np.random.default_rng(0)
    w, rows, *xs = (rng.normal(size=(8, 8)).astype(np.float32) for _ in range(5))
    variables = {
        "params": {"w": w, "scale": np.float32(0.1)},
        "teacher": {"w": 0.5 * w},
        "queue": {"rows": rows},
    }
    return loss_fn, value_and_grad, variables, [{"x": x} for x in xs], traced


@pytest.mark.parametrize("chunks", [False, True])
def test_collections_and_the_gradient_cache(chunks):
    loss_fn, value_and_grad, variables, batches, traced = of_a_queue()
    settings = {"value_and_grad": value_and_grad if chunks else None, "ema_decay": 0.5}

    def run(form):
        optimizer = optax.sgd(0.1, momentum=0.9)
        state = create_state(variables, optimizer, apply_fn=lambda v: v, average=True)
        return train(*form(state, loss_fn, **settings), batches)[1]

    state = run(shards)
    assert bool(traced) == chunks
    other = run(whole)
    assert not np.allclose(state.carried["teacher"]["w"], variables["teacher"]["w"], atol=0.01)
    assert_alike(state, other)


def square(params, carried, batch, key):
    del key
    return collectives.mean(jnp.mean((batch["x"] @ params["w"]) ** 2), "batch"), (carried, {})


def of_one_kernel(dtype=jnp.float32, optimizer=None):
    variables = {"params": {"w": jnp.full((64, 128), 0.01, dtype)}}
    optimizer = optax.sgd(0.1, momentum=0.9) if optimizer is None else optimizer
    return create_state(variables, optimizer, apply_fn=lambda v: v)


ROWS = {"x": np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)}


def test_parameters_of_low_precision_and_their_momentum_keep_their_dtype():
    runs = [
        train(*form(of_one_kernel(jnp.bfloat16), square), [ROWS])[1] for form in (shards, whole)
    ]
    assert runs[0].params["w"].dtype == jnp.bfloat16
    assert_alike(*runs, rounding=2**-8)


def test_a_step_reuses_the_buffers_and_is_compiled_once():
    state, step, mesh = shards(make_state(average=True), make_loss("batch"), ema_decay=0.9)
    first = jax.tree.leaves(state)
    for number in range(3):
        state, _ = step(state, jax.device_put(make_batch(number), batch_sharding(mesh)), KEY)
    assert all(leaf.is_deleted() for leaf in first)
    assert step._cache_size() == 1  # the state comes out as it went in
    for kept in (state.params, state.ema["params"]):
        assert kept["Dense_0"]["kernel"].addressable_shards[0].data.shape == (6, 2)


def test_gradients_are_scattered_and_no_more_is_sent():
    """Together the floats of the all-reduce of a whole state, 2 (P - 1) / P of the gradient."""
    state, step, mesh = shards(of_one_kernel(), square, 4)
    rows = jax.device_put(ROWS, batch_sharding(mesh))
    text = step.lower(state, rows, KEY).compile().as_text()
    part = 64 * 128 * 3 / 4
    found = {kind: each.sent // 4 for kind, each in traffic(text, 4, at_least=4000).items()}
    assert found == {"all-gather": part, "reduce-scatter": part}


def test_a_loss_that_differs_between_devices_is_refused():
    def own(params, carried, batch, key):
        del key
        return jnp.mean((batch["x"] @ params["w"]) ** 2), (carried, {})

    state, step, _ = shards(of_one_kernel(), own)
    with pytest.raises(ValueError, match="out_specs"):
        step(state, ROWS, KEY)


def test_a_state_in_place_of_its_shardings_is_refused():
    with pytest.raises(ValueError, match=r"got ArrayImpl; give those of state_sharding\("):
        make_sharded_step(square, of_one_kernel())


def test_a_state_that_lies_elsewhere_is_refused():
    state = of_one_kernel()
    _, step, mesh = shards(state, square)
    with pytest.raises(ValueError, match=r"[Ss]harding"):
        step(replicate(state, mesh), ROWS, KEY)


@pytest.mark.parametrize("encoder", [ViT(depth=2), resnet18()])
def test_a_sixteenth_of_large_arrays_is_an_eighth_of_the_state_at_most(encoder):
    def begin(key):
        images = jnp.zeros((1, 32, 32, 3))
        variables = encoder.init(key, images, train=False)
        return create_state(variables, adamw(lambda _: 0.1), apply_fn=encoder.apply, average=True)

    state = jax.eval_shape(begin, KEY)
    shardings = state_sharding(state, AbstractMesh((16,), ("batch",)))
    assert bytes_on_a_device(state, shardings) <= state_bytes(state) / 8


def test_a_program_is_given_its_share_alone():
    optimizer = adamw(lambda _: 0.1)
    state, step, mesh = shards(of_one_kernel(optimizer=optimizer), square, 8)
    rows = jax.device_put(ROWS, batch_sharding(mesh))
    memory = memory_of(step.lower(state, rows, KEY).compile())
    share = bytes_on_a_device(state, jax.tree.map(lambda leaf: leaf.sharding, state))
    kernels = 3 * 64 * 128 * 4
    assert kernels / 8 <= share <= kernels / 8 + 64
    assert share + 64 * 4 <= memory.arguments <= share + 64 * 4 + 64  # a row, and the key
    assert memory.donated >= kernels / 8


SIXTEEN = """
import json
import jax, jax.numpy as jnp
from jaxcon.encoders import ViT
from jaxcon.planning.memory import memory_of
from jaxcon.training.devices import *
from jaxcon.training.optimizers import adamw
from jaxcon.training.sharded import *
from jaxcon.training.state import create_state
from jaxcon.training.step import make_train_step, shard_step
from jaxcon.planning.topologies import devices
mesh = make_mesh({devices})
net = ViT(depth=2)
def loss_fn(params, carried, batch, key):
    z = net.apply({{"params": params}}, batch["image"], train=True)
    return jax.lax.pmean(jnp.mean(z ** 2), "batch"), (carried, {{}})
def begin(key):
    variables = net.init(key, jnp.zeros((1, 32, 32, 3)), train=False)
    return create_state(variables, adamw(lambda _: 0.1), apply_fn=net.apply, average=True)
shapes = jax.eval_shape(begin, jax.random.key(0))
shardings = state_sharding(shapes, mesh)
everywhere = jax.tree.map(lambda _: jax.NamedSharding(mesh, jax.P()), shapes)
def arguments(step, shardings):
    state = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
    )
    batch = {{"image": jax.ShapeDtypeStruct((16, 32, 32, 3), jnp.float32)}}
    return memory_of(step.lower(state, batch, jax.random.key(0)).compile()).arguments
print(json.dumps([
    arguments(make_sharded_step(loss_fn, shardings, ema_decay=0.9), shardings),
    arguments(shard_step(make_train_step(loss_fn, ema_decay=0.9), mesh), everywhere),
]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "devices", ['select_accelerator("cpu", num_devices=16)', 'devices("v5e:4x4")']
)
def test_on_sixteen_devices_a_program_is_given_an_eighth_at_most(devices):
    if "v5e" in devices and (command := missing("tpu")):
        pytest.skip(f"no compiler for TPUs here: {command}")
    out, err = python(SIXTEEN.format(devices=devices), **ENVIRONMENT).communicate(timeout=300)
    part, everything = json.loads(out or err)
    assert part <= everything / 8


TOGETHER = """
import json, sys
from pathlib import Path
import jax
from jaxcon.training.checkpoint import Checkpoints
from jaxcon.training.devices import *
from jaxcon.training.digests import state_hash
from jaxcon.training.optimizers import adamw
from jaxcon.training.sharded import make_sharded_step, state_sharding
from tests.training.toy import make_batch, make_loss, make_state
mesh = make_mesh(select_accelerator("cpu", num_devices=4))
first = make_state(adamw(lambda _: 0.1), average=True)
shardings = state_sharding(first, mesh, at_least=1)
state = jax.jit(lambda state: state, out_shardings=shardings)(jax.device_get(first))
step = make_sharded_step(make_loss("batch"), shardings, ema_decay=0.9)
losses, hashes = [], []
with Checkpoints(Path(r"{folder}")) as checkpoints:
    if found := checkpoints.restore(state):
        assert found[0] == 3
        hashes.append(state_hash(fetch(found[1])))
    for number in range(3):
        batch = {{
            name: jax.make_array_from_callback(v.shape, batch_sharding(mesh), lambda i, v=v: v[i])
            for name, v in make_batch(number).items()
        }}
        state, metrics = step(state, batch, jax.random.key(7))
        losses.append(float(metrics["loss"]))
    if not found:
        checkpoints.save(3, state)
        checkpoints.wait()
        restored = checkpoints.restore(state)[1]
        assert state_hash(fetch(restored)) == state_hash(fetch(state))
        hashes.append(state_hash(fetch(restored)))
print(json.dumps([jax.process_count(), int(state.step), hashes, losses]))
"""


@pytest.mark.slow
def test_shards_on_two_hosts_are_trained_saved_and_restored_on_one(tmp_path):
    code = TOGETHER.format(folder=tmp_path)
    pair = [json.loads(out) for out in two_processes(code)]
    out, err = python(code).communicate(timeout=240)
    alone = json.loads(out or err)
    assert [row[0] for row in (*pair, alone)] == [2, 2, 1]
    assert {row[1] for row in (*pair, alone)} == {3}
    assert pair[0][2:] == pair[1][2:]
    assert alone[2] == pair[0][2]  # the state that it read
    np.testing.assert_allclose(alone[3], pair[0][3], rtol=1e-5)
