"""Colours of photographs: values of torchvision and Pillow, what is drawn, views of crops."""

import itertools
import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from PIL import Image, ImageEnhance, ImageOps

from jaxcon import augment
from jaxcon.augment import photographs
from tests.augment.images import KEY, PHOTOS
from tests.marks import slow_unless

REFERENCE = np.load(pathlib.Path(__file__).parent / "reference" / "torchvision.npz")
SINGLE = [name for name in REFERENCE.files if "/" in name]
NEUTRAL = np.array([1, 1, 1, 0], np.float32)
OPERATIONS = ("brightness", "contrast", "saturation", "hue")
CROPS = np.random.default_rng(2).integers(0, 256, (8, 2, 12, 12, 3), dtype=np.uint8)
jitter = jax.jit(augment.jitter_colours)


def to_bytes(image):
    return np.round(255 * np.asarray(image)).astype(int)


def changed(image, name, amount):
    """The image after one operation."""
    if name == "solarize":
        return augment.solarize(image, threshold=amount)
    if name == "blur":
        return augment.gaussian_blur(image, amount, reach=2)
    if name == "gray":
        return jitter(image, np.array([1, 1, 0, 0], np.float32), np.arange(4))
    amounts = np.where(np.array(OPERATIONS) == name, amount, NEUTRAL)
    return jitter(image, amounts, np.arange(4))


@pytest.mark.parametrize("entry", SINGLE)
def test_each_operation_is_torchvisions(entry):
    name, _, amount = entry.partition("/")
    image = REFERENCE["image"] / np.float32(255)
    found = changed(image, name, np.float32(amount))
    assert np.abs(to_bytes(found) - REFERENCE[entry]).max() <= 2
    assert np.abs(to_bytes(image) - REFERENCE[entry]).max() > 20  # it does something


def test_every_order_is_torchvisions():
    image, amounts = REFERENCE["image"] / np.float32(255), REFERENCE["amounts"]
    outputs = []
    for order in itertools.permutations(range(4)):
        outputs.append(to_bytes(jitter(image, amounts, np.argsort(order))))
    gaps = np.abs(np.array(outputs)[:, None] - REFERENCE["orders"][None]).max(axis=(2, 3, 4))
    assert np.diagonal(gaps).max() <= 2
    assert gaps[~np.eye(24, dtype=bool)].min() > 20  # no order could pass for another


@pytest.mark.parametrize(
    ("name", "enhance"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.7])
def test_blends_are_pillows(name, enhance, factor):
    expected = np.asarray(enhance(Image.fromarray(PHOTOS[0])).enhance(factor))
    found = changed(PHOTOS[0] / np.float32(255), name, factor)
    assert np.abs(to_bytes(found) - expected).max() <= 2


def test_what_is_solarized_is_pillows():
    """At threshold 0.5 of [0, 1], which is 128 of 255."""
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = np.asarray(ImageOps.solarize(Image.fromarray(every)))
    np.testing.assert_array_equal(to_bytes(augment.solarize(every / np.float32(255))), expected)


def test_a_whole_turn_through_the_hues_returns():
    image = REFERENCE["image"] / np.float32(255)
    third = np.array([1, 1, 1, 1 / 3], np.float32)
    turned = image
    for _ in range(3):
        turned = jitter(turned, third, np.arange(4))
    np.testing.assert_allclose(turned, image, atol=1e-5)


def draws(monkeypatch, count, **settings):
    """The amounts and places that so many images draw, both `[count, 4]`."""

    def spy(image, amounts, places):
        seen = jnp.concatenate([(amounts + 0.5) / 3, places / 4.0])
        return jnp.broadcast_to(seen[None, :, None], (1, 8, 3)) + 0 * image

    monkeypatch.setattr(photographs, "jitter_colours", spy)
    colours = partial(augment.photo_colours, gray=0.0, blur=0.0, **settings)
    keys, image = jax.random.split(KEY, count), jnp.zeros((1, 8, 3))
    seen = np.asarray(jax.jit(jax.vmap(colours, (0, None)))(keys, image))[:, 0, :, 0]
    return 3 * seen[:, :4] - 0.5, np.round(4 * seen[:, 4:]).astype(int)


def test_orders_and_amounts_are_drawn_evenly_and_apart(monkeypatch):
    amounts, places = draws(monkeypatch, 4800, jitter=1.0)
    assert (np.sort(places) == np.arange(4)).all()
    _, counts = np.unique(places, axis=0, return_counts=True)
    assert len(counts) == 24
    assert np.abs(counts - 200).max() < 75  # five standard deviations
    np.testing.assert_allclose(amounts.min(axis=0), [0.2, 0.2, 0.2, -0.2], atol=0.01)
    np.testing.assert_allclose(amounts.max(axis=0), [1.8, 1.8, 1.8, 0.2], atol=0.01)
    np.testing.assert_allclose(amounts.mean(axis=0), [1, 1, 1, 0], atol=0.04)
    correlation = np.corrcoef(np.hstack([amounts, places]).T) * (1 - np.eye(8))
    assert np.abs(correlation[:4]).max() < 0.08


def test_a_strength_above_one_never_turns_a_factor_negative(monkeypatch):
    amounts, _ = draws(monkeypatch, 400, jitter=1.0, strengths=(1.5, 1.2, 1.0, 0.5))
    assert amounts[:, :3].min() > -1e-6
    assert amounts[:, 0].max() > 2.4
    never, _ = draws(monkeypatch, 50, jitter=0.0)
    np.testing.assert_allclose(never, np.tile(NEUTRAL, (50, 1)), atol=1e-6)


def fired(share, changes, **others):
    """The share of 600 images that a setting, and nothing else, changes."""
    off = {"jitter": 0.0, "gray": 0.0, "blur": 0.0, "solar": 0.0}
    colours = partial(augment.photo_colours, **off | {changes: share} | others)
    image = CROPS[0, 0, :4, :4] / np.float32(255)
    image = np.kron(image, np.ones((10, 10, 1), np.float32))  # 40 pixels: a blur reaches 2
    out = jax.jit(jax.vmap(colours, (0, None)))(jax.random.split(KEY, 600), image)
    return (np.abs(np.asarray(out) - image).max(axis=(1, 2, 3)) > 1e-3).mean()


CHANCES = [("jitter", 0.8), ("gray", 0.2), ("blur", 0.5), ("solar", 0.2)]


@pytest.mark.parametrize("case", slow_unless(CHANCES[0].__eq__, CHANCES), ids=str)
def test_each_operation_happens_as_often_as_it_should(case):
    changes, share = case
    sigma = {"sigma": (1.0, 2.0)} if changes == "blur" else {}  # one of 0.1 pixels changes nothing
    assert abs(fired(share, changes, **sigma) - share) < 0.08


def test_a_blur_reaches_a_twentieth_of_the_side():
    point = np.zeros((60, 60, 3), np.float32)
    point[30, 30] = 1
    blurred = partial(augment.photo_colours, jitter=0.0, gray=0.0, blur=1.0, sigma=(2.0, 2.0))
    rows = np.flatnonzero(np.asarray(jax.jit(blurred)(KEY, point)).sum(axis=(1, 2)))
    np.testing.assert_array_equal(rows, np.arange(27, 34))


def views(crops, transforms, key=KEY, index=None):
    index = np.arange(len(crops)) if index is None else index
    made = jax.jit(partial(augment.coloured, transforms=transforms))(key, crops, index=index)
    return [np.asarray(view) for view in made]


def dimmed(key, image):
    return image * jax.random.uniform(key)


def inverted(key, image):
    return 1 - dimmed(key, image)


@pytest.mark.parametrize("transforms", [(dimmed, dimmed), (dimmed, inverted), (inverted,)])
def test_a_view_is_its_crop_by_its_transform_with_the_key_of_row_and_view(transforms):
    index = np.array([5, 0, 3, 2**20, 9, 1, 4, 7])
    crops = CROPS[:, : len(transforms)]
    made = views(crops, transforms, index=index)
    assert len(made) == len(transforms)
    for v, row in itertools.product(range(len(transforms)), range(8)):
        key = jax.random.split(jax.random.fold_in(KEY, index[row]))[v]
        expected = transforms[v](key, crops[row, v] / np.float32(255))
        assert made[v].dtype == np.float32
        np.testing.assert_allclose(made[v][row], expected, atol=1e-6)


def test_views_of_a_batch_of_many_devices_are_those_of_one():
    transforms = augment.SIMCLR_COLOURS
    mesh = Mesh(np.array(jax.devices()[:4]), ("batch",))
    rows = {"in_specs": (P(), P("batch"), P("batch")), "out_specs": P("batch")}
    local = lambda key, crops, index: augment.coloured(  # noqa: E731
        key, crops, transforms=transforms, index=index
    )
    sharded = jax.jit(jax.shard_map(local, mesh=mesh, **rows))(KEY, CROPS, np.arange(8))
    single = views(CROPS, transforms)
    for view, expected in zip(sharded, single, strict=True):
        np.testing.assert_allclose(view, expected, atol=1e-5)


def test_views_of_barlow_twins_are_of_two_kinds():
    """On even grey images only what is solarized becomes darker than any jitter makes it."""
    first, second = (t.keywords for t in augment.BARLOW_TWINS_COLOURS)
    assert first == {"strengths": (0.4, 0.4, 0.2, 0.1), "blur": 1.0}
    assert second == {"strengths": (0.4, 0.4, 0.2, 0.1), "blur": 0.1, "solar": 0.2}
    white = np.full((200, 2, 1, 1, 3), 255, np.uint8)
    v1, v2 = views(white, augment.BARLOW_TWINS_COLOURS)
    assert v1.min() > 0.5
    assert 0.1 < (v2.max(axis=(1, 2, 3)) < 0.5).mean() < 0.3


@pytest.mark.parametrize(
    ("crops", "transforms", "said"),
    [
        (CROPS, (dimmed,), r"expected \[batch, 1, .*got \(8, 2, 12, 12, 3\); crop every"),
        (CROPS[:, :1], (dimmed, dimmed), r"expected \[batch, 2, .*got \(8, 1, 12, 12, 3\)"),
        (CROPS[:, 0], (dimmed, dimmed), r"expected \[batch, 2, .*got \(8, 12, 12, 3\)"),
        (CROPS[..., :1], augment.SIMCLR_COLOURS, r"expected an image \[height, width, 3\], got"),
        (CROPS.astype(np.int32), (dimmed, dimmed), "got int32"),
    ],
)
def test_what_are_no_crops_for_these_views_is_refused_in_one_line(crops, transforms, said):
    with pytest.raises(ValueError, match=said) as error:
        augment.coloured(KEY, crops, transforms=transforms)
    assert "\n" not in str(error.value)


def test_crops_under_shard_map_need_their_global_rows():
    mesh = Mesh(np.array(jax.devices()[:2]), ("batch",))
    local = lambda crops: augment.coloured(KEY, crops, transforms=(dimmed, dimmed))  # noqa: E731
    mapped = jax.shard_map(local, mesh=mesh, in_specs=P("batch"), out_specs=P("batch"))
    with pytest.raises(ValueError, match=r"same views.*row_index\(4, 'batch'\)"):
        mapped(CROPS)


def test_all_orders_are_one_program_without_branches_gathers_or_sorts():
    for blur, products in ((0.0, 0), (0.5, 4)):
        colours = partial(augment.photo_colours, blur=blur, solar=0.2)
        traced = jax.jit(partial(augment.coloured, transforms=(colours, colours))).trace(KEY, CROPS)
        text = traced.lower(lowering_platforms=("tpu",)).as_text()
        for slow in ("stablehlo.gather", "stablehlo.sort", "stablehlo.while"):
            assert slow not in text
        assert ("stablehlo.case" in text) == (blur > 0)  # the form of a blur on this platform
        assert text.count("stablehlo.dot_general") == products  # along both axes, of two views
