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

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxcon import collectives, losses
from jaxcon.planning.traffic import floats_sent

DEVICES, ROWS, DIM = 8, 32, 64


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
    """Blocks that a device sends, by operation."""
    sent = floats_sent(text, DEVICES, at_least=ROWS * DIM)
    return {operation: floats / (ROWS * DIM) for operation, floats in sent.items()}


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
