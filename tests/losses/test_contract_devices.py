"""Every public loss gives one device's value and gradient on many, in every way to spread a batch.

By default 8 devices: every loss under a checked `shard_map` in float64 with masks, and one loss of
each family in float32 in the modes in turn. `-m exhaustive` runs 1, 2, 4 and 8 devices in every
mode, every form of a loss, with and without masks.
"""

import itertools

import numpy as np
import pytest

from tests.losses.calls import gap
from tests.losses.cases import CASES, each
from tests.losses.devices import MODES, alone, spread

TOLERANCE = {np.float32: 1e-6, np.float64: 1e-12}

# One loss of each family; with them each mode is met at least once.
FAMILIES = {
    *("ntxent_loss", "npairs_loss", "clip_loss", "supcon_loss", "siglip_loss", "triplet_loss"),
    *("barlow_twins_loss", "gaussian_clip_loss", "cosine_regression_loss", "uniformity_loss"),
}


def agree(case, mode, devices, dtype, masked):
    inputs = case.inputs(seed=21)
    rows = case.rows(seed=21) if masked else case.neutral()
    expected = alone(case, inputs, rows, dtype)
    got = spread(case, mode, devices, inputs, rows, dtype)
    for part, one, many in zip(expected._fields, expected, got, strict=True):
        assert gap(many, one) < TOLERANCE[dtype], f"{part} differs"


@each()
def test_eight_devices_in_float64_with_masks(case):
    agree(case, "shard_map", 8, np.float64, masked=True)


@pytest.mark.parametrize(
    ("case", "mode"),
    [
        (case, mode)
        if case.name in FAMILIES
        else pytest.param(case, mode, marks=pytest.mark.exhaustive)
        for case, mode in zip([c for c in CASES if c.plain], itertools.cycle(MODES), strict=False)
    ],
    ids=lambda v: v if isinstance(v, str) else v.id,
)
def test_eight_devices_in_float32(case, mode):
    agree(case, mode, 8, np.float32, masked=False)


@pytest.mark.exhaustive
@each(all_forms=True)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", MODES)
def test_any_number_of_devices_in_every_mode(case, mode, devices, dtype):
    if "2-D" in mode and devices == 1:
        pytest.skip("a 2-D mesh needs two devices")
    agree(case, mode, devices, dtype, masked=False)
    agree(case, mode, devices, dtype, masked=True)
