"""Every public loss gives one device's value and gradient on many, in every way to spread a batch.

By default 8 devices: every loss under a checked ``shard_map`` in float64 with masks, and in float32 in
one of the other modes in turn. ``-m slow`` runs 1, 2, 4 and 8 devices in every mode, with and without
masks.
"""

import itertools

import numpy as np
import pytest

from tests.losses.calls import gap
from tests.losses.cases import CASES
from tests.losses.devices import MODES, alone, spread

TOLERANCE = {np.float32: 1e-6, np.float64: 1e-12}
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def agree(case, mode, devices, dtype, masked):
    inputs = case.inputs(seed=21)
    rows = case.rows(seed=21) if masked else case.neutral()
    expected = alone(case, inputs, rows, dtype)
    got = spread(case, mode, devices, inputs, rows, dtype)
    for part, one, many in zip(expected._fields, expected, got, strict=True):
        assert gap(many, one) < TOLERANCE[dtype], f"{part} differs"


@each_case
def test_eight_devices_in_float64_with_masks(case):
    agree(case, "shard_map", 8, np.float64, masked=True)


@pytest.mark.parametrize(
    ("case", "mode"),
    list(zip(CASES, itertools.cycle(MODES), strict=False)),
    ids=lambda v: v if isinstance(v, str) else v.id,
)
def test_eight_devices_in_float32(case, mode):
    agree(case, mode, 8, np.float32, masked=False)


@pytest.mark.slow
@each_case
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", MODES)
def test_any_number_of_devices_in_every_mode(case, mode, devices, dtype):
    if "2-D" in mode and devices == 1:
        pytest.skip("a 2-D mesh needs two devices")
    agree(case, mode, devices, dtype, masked=False)
    agree(case, mode, devices, dtype, masked=True)
