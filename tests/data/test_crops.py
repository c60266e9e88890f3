"""Where crops are drawn: by torchvision's rule, inside the picture, again the same."""

import itertools
import math

import numpy as np
import pytest

from jaxcon.data.crops import Crops
from jaxcon.data.splits import DataError

SIZES = [(375, 500), (1500, 2000), (200, 200), (30, 1000), (1000, 1), (1, 1), (3, 2)]


def boxes(size, count=300, crops=Crops(side=32)):  # noqa: B008
    return [crops.box(size, seed=3, step=5, row=row, view=0) for row in range(count)]


def torchvision_rule(height, width, rng):
    """`RandomResizedCrop.get_params` as torchvision 0.2x has it, in NumPy."""
    for _ in range(10):
        target = height * width * rng.uniform(0.08, 1.0)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w
    raise AssertionError("no crop fits")


@pytest.mark.parametrize("size", [(375, 500), (400, 400)])
def test_crops_are_spread_as_those_of_torchvision(size):
    """Largest distance of the two empirical distributions; 0.05 has a probability below 1e-4."""
    rng = np.random.default_rng(0)
    rule = np.array([torchvision_rule(*size, rng) for _ in range(4000)])
    drawn = np.array([box[:4] for box in boxes(size, 4000)])
    measures = {
        "area": lambda t, l, h, w: h * w,
        "aspect": lambda t, l, h, w: w / h,
        "top": lambda t, l, h, w: t + h / 2,
        "left": lambda t, l, h, w: l + w / 2,
    }
    for name, measure in measures.items():
        one, other = np.sort(measure(*drawn.T)), np.sort(measure(*rule.T))
        ends = np.concatenate([one, other])
        below = [np.searchsorted(x, ends, side="right") / len(x) for x in (one, other)]
        assert np.abs(below[0] - below[1]).max() < 0.05, name


@pytest.mark.parametrize("size", SIZES)
def test_a_crop_lies_within_the_picture_and_its_ranges(size):
    height, width = size
    for box in boxes(size):
        assert box.height > 0
        assert box.width > 0
        assert box.top >= 0
        assert box.left >= 0
        assert box.top + box.height <= height * (1 + 1e-12)
        assert box.left + box.width <= width * (1 + 1e-12)
        assert 3 / 4 - 1e-9 <= box.width / box.height <= 4 / 3 + 1e-9


def test_of_a_panorama_the_largest_centre_crop_is_left():
    for box in boxes((30, 1000), crops=Crops(32, area=(0.5, 1.0))):
        assert box[:4] == pytest.approx((0, 480, 30, 40))


def test_a_crop_of_nearly_everything_has_the_aspect_of_the_picture():
    """No draw of ten fits: the first one is moved until it does, and keeps its area."""
    crops = Crops(32, area=(0.99, 0.99))
    moved = [crops.box((300, 400), seed=0, step=0, row=r, view=0) for r in range(50)]
    assert all(box.height * box.width == pytest.approx(0.99 * 300 * 400) for box in moved)


def test_draws_differ_by_seed_step_row_and_view_and_by_nothing_else():
    crops = Crops(32)
    every = list(itertools.product((0, 7), (0, 2**40), (0, 1, 4095), (0, 1)))
    draw = {
        (seed, step, row, view): crops.box((375, 500), seed=seed, step=step, row=row, view=view)
        for seed, step, row, view in every
    }
    assert len(set(draw.values())) == len(every)
    again = crops.box((375, 500), seed=7, step=2**40, row=4095, view=1)
    assert again == draw[7, 2**40, 4095, 1]


def test_half_of_the_views_are_mirrored_or_none():
    share = np.mean([box.flipped for box in boxes((50, 60), 2000)])
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(2000)
    assert not any(box.flipped for box in boxes((50, 60), crops=Crops(32, flip=False)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"side": 0}, "side and views must be at least 1, got 0 and 2"),
        ({"side": 8, "views": 0}, "got 8 and 0"),
        ({"side": 8, "area": (0.0, 1.0)}, r"area must be within 0 < low <= high <= 1, got \(0.0"),
        ({"side": 8, "area": (0.5, 1.5)}, "area must be"),
        ({"side": 8, "ratio": (2.0, 1.0)}, "ratio must be within 0 < low <= high"),
        ({"side": 8, "ratio": (1.0, math.inf)}, "ratio must be"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(DataError, match=said):
        Crops(**settings)
