"""What a compiled step tells, and what one that its compiler refused does."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcon.planning.forecast import forecast

REFUSED = {
    "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 61.07G of 15.75G hbm.": 61.07,
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries "
    "(38.30G) exceeds available HBM (15.75G).": 38.3,
    "RESOURCE_EXHAUSTED: too much": None,
}
Z = jax.ShapeDtypeStruct((64, 8), jnp.float32)


def placed(devices, *axes):
    """How rows lie on devices: divided with the axis, without it a copy on each."""
    return NamedSharding(Mesh(np.array(devices), ("batch",)), P(*axes))


def on(devices):
    """The array, its rows divided among devices."""
    return jax.ShapeDtypeStruct(Z.shape, Z.dtype, sharding=placed(devices, "batch"))


@pytest.mark.parametrize("said", REFUSED)
def test_a_program_that_was_refused(said):
    def refuse():
        raise jax.errors.JaxRuntimeError(said)

    step = SimpleNamespace(lower=lambda *_: SimpleNamespace(compile=refuse))
    found = forecast(step, on(jax.devices()[:4]), topology="v5e:2x2")
    wanted = REFUSED[said]
    assert found.needed == (None if wanted is None else int(wanted * 2**30))
    assert not found.fits
    assert (found.devices, found.ms, found.share_of_peak, found.link_ms) == (4, None, None, None)


def test_another_error_is_raised():
    def fail():
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")

    step = SimpleNamespace(lower=lambda *_: SimpleNamespace(compile=fail))
    with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
        forecast(step, on(jax.devices()[:4]), topology="v5e:2x2")


@pytest.mark.parametrize(("hosts", "links"), [(1, 450), (2, 50)])
def test_what_is_sent_takes_the_links_of_the_machine(hosts, links):
    """Beyond one host of eight GPUs the links are those between hosts."""

    def step(z):
        with jax.named_scope("loss"):
            everywhere = placed(jax.devices()[:8])
            return jax.lax.with_sharding_constraint(jnp.sin(z), everywhere) @ jnp.ones((8, 4))

    found = forecast(jax.jit(step), on(jax.devices()[:8]), topology="h100:8")._replace(
        devices=8 * hosts
    )
    assert found.fits
    assert found.loss_ms
    assert found.ms
    assert found.traffic
    sent = 64 * 8 * 4 // 8 * 7
    assert found.traffic["all-gather"].sent == sent
    assert found.link_ms == pytest.approx(sent / links / 1e6)
    assert found.share_of_peak == pytest.approx(found.flop / (found.ms * 790e9))
