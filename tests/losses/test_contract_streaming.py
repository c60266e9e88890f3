"""In tiles, and with the candidates travelling in a ring, every loss is what it is as one matrix.

By default: tiles that do not divide the batch on one device, and for one loss of each family the ring
over 8 devices, in float64 with masks. ``-m slow`` adds tile edges, float32, and for all losses the ring
on any number of devices in every mode.
"""

import dataclasses

import numpy as np
import pytest

from jaxcon import collectives
from tests.losses.calls import gap
from tests.losses.cases import FAMILIES, TILED, N, each
from tests.losses.devices import alone, spread

TOLERANCE = {np.float32: 3e-6, np.float64: 1e-12}
each_case = pytest.mark.parametrize("case", TILED, ids=lambda case: case.id)


def agree(case, dtype, masked=True, mode=None, devices=1, **evaluation):
    """The case evaluated so equals the case as it is, in value and gradients."""
    inputs = case.inputs(seed=23)
    rows = case.rows(seed=23) if masked else case.neutral()
    other = dataclasses.replace(case, settings={**case.settings, **evaluation})
    expected = alone(case, inputs, rows, dtype)
    if mode is None:
        got = alone(other, inputs, rows, dtype)
    else:
        got = spread(other, mode, devices, inputs, rows, dtype)
    # Logits of the circle loss reach 300, which float32 holds to 1e-5.
    tolerance = TOLERANCE[dtype] * (3 if case.name == "circle_loss" else 1)
    # A value near 0 (a decoupled loss) is a difference of terms of about 1 / temperature.
    assert abs(got.value - expected.value) < tolerance * max(1, abs(expected.value))
    for part in ("encoder", "embeddings"):
        assert gap(getattr(got, part), getattr(expected, part)) < tolerance, part


def test_the_pairwise_families_are_all_here():
    names = {case.loss.__name__ for case in TILED}
    assert names >= {
        *("ntxent_loss", "info_nce_loss", "npairs_loss", "clip_loss", "supcon_loss", "dcl_loss"),
        *("hard_negative_loss", "siglip_loss", "gaussian_clip_loss", "csd_loss"),
    }


@each(lambda case: case in TILED)
def test_tiles_that_do_not_divide_the_batch(case):
    agree(case, np.float64, block_size=5)


@pytest.mark.parametrize("name", FAMILIES)
def test_ring_of_eight_devices(name):
    case = next(case for case in TILED if case.name == name)
    agree(case, np.float64, mode="shard_map", devices=8, exchange=collectives.ring)


@pytest.mark.slow
@each_case
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("block_size", [1, 3, N // 2, N, 3 * N])
def test_tiles_of_any_size(case, block_size, masked, dtype):
    agree(case, dtype, masked, block_size=block_size)


@pytest.mark.slow
@each_case
@pytest.mark.parametrize("block_size", [None, 3])
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["vmap", "pmap", "shard_map", "shard_map unchecked"])
def test_ring_of_any_length_in_every_mode(case, mode, devices, block_size):
    agree(
        case,
        np.float64,
        mode=mode,
        devices=devices,
        exchange=collectives.ring,
        block_size=block_size,
    )


@pytest.mark.slow
@each_case
@pytest.mark.parametrize("mode", ["vmap", "pmap", "shard_map", "shard_map unchecked"])
def test_tiles_on_eight_devices(case, mode):
    agree(case, np.float64, mode=mode, devices=8, block_size=3)
