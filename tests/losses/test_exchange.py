"""Which exchange a loss takes by itself: candidates of large batches travel, others are gathered."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxcon import collectives, losses
from jaxcon.streaming import rules

TRAVEL = rules.Rule(ring_rows=1, gathered_pairs=0)
PAIR_LOSSES = {
    "clip": losses.clip_loss,
    "siglip": losses.siglip_loss,
    "siglip per anchor": partial(losses.siglip_loss, reduce_fn=None),
    "ntxent": losses.ntxent_loss,
    "gaussian": lambda a, b, **kw: losses.gaussian_clip_loss(a, b, a[:, 0] / 9, b[:, 0] / 9, **kw),
}


def mapped(loss, devices, **keywords):
    """Value and gradients of a loss over so many devices, summed over its anchors."""
    rows, whole = jax.P("batch"), jax.P()
    mesh = Mesh(np.array(jax.devices()[:devices]), ("batch",))

    def step(*z):
        def total(*z):
            value = loss(*z, axis_name="batch", **keywords)
            return jax.lax.psum(jnp.sum(value), "batch") if value.ndim else value

        return jax.value_and_grad(total, argnums=(0, 1))(*z)

    return jax.jit(jax.shard_map(step, mesh=mesh, in_specs=rows, out_specs=(whole, rows)))


def exchanges(step, *args):
    """The collectives that move candidates in a program, as it is lowered."""
    text = step.lower(*args).as_text()
    return {name for name in ("all_gather", "collective_permute") if name in text}


@pytest.mark.parametrize(
    ("devices", "rows", "chosen"),
    [
        (8, 1024, {"all_gather"}),  # 2^23 pairs a device
        (8, 4096, {"collective_permute"}),  # 2^27
        (4, 4096, {"all_gather"}),  # 2^26
        (2, 8192, {"collective_permute"}),
        (1, 16_384, set()),  # all are here
    ],
)
def test_the_exchange_is_chosen_by_the_number_of_pairs(devices, rows, chosen):
    z = jax.ShapeDtypeStruct((devices * rows, 4), jnp.float32)
    assert exchanges(mapped(losses.clip_loss, devices), z, z) == chosen


@pytest.mark.parametrize("exchange", [collectives.gather, collectives.ring])
def test_what_a_caller_asks_for_is_what_is_done(exchange):
    z = jax.ShapeDtypeStruct((24, 4), jnp.float32)
    with rules.in_force(TRAVEL):
        found = exchanges(mapped(losses.clip_loss, 4, exchange=exchange), z, z)
    asked = "all_gather" if exchange is collectives.gather else "collective_permute"
    assert found == {asked}


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_candidates_that_travel_by_the_rule_give_the_same(name):
    z = jax.random.normal(jax.random.key(0), (2, 24, 6))
    gathered = mapped(PAIR_LOSSES[name], 4)
    with rules.in_force(TRAVEL):
        travelling = mapped(PAIR_LOSSES[name], 4)
        assert "all_gather" not in exchanges(travelling, *z)
        got = travelling(*z)
    expected = gathered(*z)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), got, expected)
