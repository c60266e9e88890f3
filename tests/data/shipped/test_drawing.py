"""Painted shapes: where they lie, how large they are, and that their colours stay apart."""

import numpy as np
import pytest

from jaxcon.data.shipped.drawing import COLOURS, SHAPES, Draws, background, paint


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_lie_where_and_as_large_as_they_should(shape):
    areas = []
    for radius in (8.0, 12.0):
        image = np.zeros((48, 48, 3), np.int32)
        paint(image, Draws(0, 1), shape=shape, colour="green", centre=(30.0, 14.0), radius=radius)
        cover = image[..., 1] / image[..., 1].max()
        y, x = np.indices(cover.shape) + 0.5
        areas.append(cover.sum())
        centre = (x * cover).sum() / cover.sum(), (y * cover).sum() / cover.sum()
        np.testing.assert_allclose(centre, (30, 14), atol=0.2)
        assert np.hypot(x - 30, y - 14)[cover > 0.5].max() > 0.95 * radius
        assert np.hypot(x - 30, y - 14)[cover > 0].max() < 1.25 * radius + 2
        partial = (cover > 0.05) & (cover < 0.95)
        assert partial.sum() > 20  # anti-aliased
    assert areas[1] / areas[0] == pytest.approx(2.25, rel=0.03)


def test_the_area_of_a_circle():
    image = np.zeros((48, 48, 3), np.int32)
    paint(image, Draws(0, 1), shape="circle", colour="red", centre=(24.0, 24.0), radius=10.0)
    assert image[..., 0].sum() / image[..., 0].max() == pytest.approx(np.pi * 100, rel=0.01)


def test_colours_of_painted_objects_stay_apart():
    def ink(colour, stream):
        image = np.zeros((24, 24, 3), np.int32)
        centre = (12.0, 12.0)
        paint(image, Draws(0, stream), shape="square", colour=colour, centre=centre, radius=9.0)
        return image[12, 12]

    palette = np.array(list(COLOURS.values()))
    for number, colour in enumerate(COLOURS):
        for stream in range(50):
            distances = np.abs(palette - ink(colour, stream)).sum(axis=1)
            assert distances.argmin() == number


def test_only_the_objects_depend_on_the_objects():
    ground = background(Draws(0, 1), side=48, tone="dark", texture="checkered")
    painted = ground.copy()
    paint(painted, Draws(0, 2), shape="star", colour="pink", centre=(12.0, 12.0), radius=12.0)
    changed = (painted != ground).any(axis=2)
    assert changed[:28, :28].sum() > 100
    assert not changed[28:].any()
    assert not changed[:, 28:].any()
