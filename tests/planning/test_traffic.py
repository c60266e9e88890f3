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
from jaxcon.planning.traffic import traffic

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
    block = 4 * ROWS * DIM
    found = traffic(text, DEVICES, at_least=block)
    return {kind: each.sent / block for kind, each in found.items()}


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


# In the words of a TPU's compiler: what starts an operation returns operands and results, groups may be
# smaller than the machine, and three arrays are added up in one go, five times.
TPU = """HloModule step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%body (c: (s32[], f32[100], bf16[50])) -> (s32[], f32[100], bf16[50]) {
  %c = (s32[], f32[100]{0}, bf16[50]{0}) parameter(0)
  %i = s32[] get-tuple-element(%c), index=0
  %x = f32[100]{0} get-tuple-element(%c), index=1
  %y = bf16[50]{0} get-tuple-element(%c), index=2
  %all = (f32[100]{0}, bf16[50]{0}) all-reduce(%x, %y), replica_groups=[1,4]<=[4], to_apply=%add
  ROOT %out = (s32[], f32[100]{0}, bf16[50]{0}) tuple(%i, %x, %y)
}

%condition (d: (s32[], f32[100], bf16[50])) -> pred[] {
  %d = (s32[], f32[100]{0}, bf16[50]{0}) parameter(0)
  %j = s32[] get-tuple-element(%d), index=0
  %limit = s32[] constant(5)
  ROOT %less = pred[] compare(%j, %limit), direction=LT
}

ENTRY %main (p: bf16[8,16], q: (s32[], f32[100], bf16[50])) -> bf16[16,16] {
  %p = bf16[8,16]{1,0} parameter(0)
  %q = (s32[], f32[100]{0}, bf16[50]{0}) parameter(1)
  %loop = (s32[], f32[100]{0}, bf16[50]{0}) while(%q), condition=%condition, body=%body
  %go = (bf16[8,16]{1,0}, bf16[16,16]{1,0}) all-gather-start(%p), replica_groups={{0,1},{2,3}}
  %on = (bf16[8,16]{1,0}, bf16[8,16]{1,0}, u32[], u32[]) collective-permute-start(%p)
  ROOT %done = bf16[16,16]{1,0} all-gather-done(%go)
}
"""


def test_traffic_of_a_known_program():
    found = traffic(TPU, 4)
    summed = 4 * 100 + 2 * 50
    assert found == {
        "all-gather": (1, 2 * 16 * 16 // 2),
        "all-reduce": (5, 5 * 2 * summed * 3 // 4),
        "collective-permute": (1, 2 * 8 * 16),
    }
    assert set(traffic(TPU, 4, at_least=501)) == {"all-gather"}
