"""What the losses send between devices, read off the compiled program and compared with a derivation.

A *block* is one device's rows as float32, of P = 8 devices. Value and gradient of

- clip by gather: all devices' z2 come in, P - 1 blocks, and the sums of their gradients go out, P - 1;
- clip by ring: z2 makes P - 1 hops forward and P - 1 backward, where its gradient travels along and
  takes one hop more to be home: 3 (P - 1) + 1 = 22;
- siglip by ring: as the gradient is taken in the forward sweep, z2 goes round once: 2 (P - 1) + 1 = 15;
- ntxent by ring: every two devices meet once, so both views of a device make P // 2 = 4 hops forward
  and 4 backward; their gradient is made at the (P - 1) // 2 = 3 stops where a visitor serves in both
  roles, 3 hops, and is sent home straight, in one: 12 blocks of both views where the full round has 22.

Vectors, a few numbers a row, come on top and are not counted.
"""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxcon import collectives, losses

DEVICES, ROWS, DIM = 8, 32, 64
SENDS = (
    r"= \(?f32\[([\d,]+)\].* (all-gather|reduce-scatter|all-reduce|collective-permute)(-start)?\("
)


def program(loss, exchange):
    """The compiled step of value and gradient."""

    def step(z1, z2):
        return loss(z1, z2, axis_name="batch", exchange=exchange, block_size=16)

    mesh = Mesh(np.array(jax.devices()[:DEVICES]), ("batch",))
    spread = jax.shard_map(
        jax.value_and_grad(step, argnums=(0, 1)),
        mesh=mesh,
        in_specs=P("batch"),
        out_specs=(P(), P("batch")),
    )
    z = jax.ShapeDtypeStruct((DEVICES * ROWS, DIM), jnp.float32)
    return jax.jit(spread).lower(z, z).compile().as_text()


def blocks_sent(text):
    """Blocks that a device sends, by operation; what stands in a loop counts as often as it runs."""
    computations = dict(re.findall(r"^(?:ENTRY )?(%\S+) \(.*?\{\n(.*?)^\}", text, re.M | re.S))
    entry = re.search(r"^ENTRY (%\S+) ", text, re.M).group(1)

    def count(name):
        sent = {}
        for line in computations[name].splitlines():
            if found := re.search(SENDS, line):
                size = math.prod(map(int, found[1].split(",")))
                if size >= ROWS * DIM:
                    # The shape is that of the result: all blocks of a gather, one's own of a sum.
                    share = {"all-gather": 1 / DEVICES, "all-reduce": 2 / DEVICES}.get(found[2], 1)
                    hops = 1 if found[2] == "collective-permute" else DEVICES - 1
                    blocks = size / (ROWS * DIM) * share * hops
                    sent[found[2]] = sent.get(found[2], 0) + blocks
            if loop := re.search(r" while\(.*body=(%[\w.\-]+)", line):
                times = int(re.search(r'known_trip_count":\{"n":"(\d+)"', line)[1])
                for kind, blocks in count(loop[1]).items():
                    sent[kind] = sent.get(kind, 0) + times * blocks
            elif call := re.search(r" call\(.*to_apply=(%[\w.\-]+)", line):
                for kind, blocks in count(call[1]).items():
                    sent[kind] = sent.get(kind, 0) + blocks
        return sent

    return count(entry)


@pytest.mark.parametrize(
    ("loss", "exchange", "expected"),
    [
        (losses.clip_loss, collectives.gather, {"all-gather": 7, "reduce-scatter": 7}),
        (losses.clip_loss, collectives.ring, {"collective-permute": 22}),
        (losses.siglip_loss, collectives.ring, {"collective-permute": 15}),
        (losses.ntxent_loss, collectives.ring, {"collective-permute": 2 * 12}),
    ],
    ids=["clip gather", "clip ring", "siglip ring", "ntxent half ring"],
)
def test_devices_send_what_was_derived(loss, exchange, expected):
    text = program(loss, exchange)
    assert blocks_sent(text) == expected
    pairs = re.compile(
        rf"\[(\d+,)*({ROWS}|{2 * ROWS}|{DEVICES * ROWS}|{2 * DEVICES * ROWS}),"
        rf"({DEVICES * ROWS}|{2 * DEVICES * ROWS})\]"
    )
    assert not pairs.search(text), "a matrix of all pairs"
