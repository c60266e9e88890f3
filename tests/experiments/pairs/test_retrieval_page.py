"""What captions and images find, on the page: the best first, from all parts of the data, as text."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments.pairs import retrieval
from experiments.pairs.figures import captions_found, pictures_found, training_pairs
from experiments.pairs.objectives import make_objective
from experiments.pairs.page import progress
from experiments.pairs.retrieval import HeldOut
from experiments.running.examples import take
from jaxcon.data.captions import PairSplit
from jaxcon.data.splits import Split
from jaxcon.encoders.dual import Embedded
from jaxcon.report.gallery import gallery_html

CHINESE, DOLLARS = chr(0x4E2D) + chr(0x6587), r"$\frac{1}$ costs 5 $"


@pytest.fixture
def found():
    """Forty images, every pixel its number; the captions of 0 and 1, and of 2 and 3, are equal."""
    rng = np.random.default_rng(0)
    images = np.broadcast_to(np.arange(40)[:, None, None, None], (40, 4, 4, 3)).astype(np.uint8)
    captions = [CHINESE, CHINESE, DOLLARS, DOLLARS, *(f"number {i}" for i in range(4, 40))]
    ids = np.unique(captions, return_inverse=True)[1]
    z = rng.normal(size=(2, 40, 6))
    sides = [Embedded(rows, np.zeros(40)) for rows in z]
    return HeldOut(images, captions, ids), *sides, make_objective("clip", None)


def ranking(queries, candidates):
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (queries, candidates)]
    return np.argsort(-(unit[0] @ unit[1].T), axis=1)


def test_captions_are_shown_with_the_pictures_they_find(found):
    test, images, texts, objective = found
    gallery = pictures_found(images, texts, objective, test)
    numbers = [test.captions.index(strip.before) for strip in gallery.strips]
    assert len(numbers) == 8
    assert max(numbers) > 30 > 10 > min(numbers)
    for number, strip in zip(numbers, gallery.strips, strict=True):
        if number < 4:
            continue  # one of two with this caption
        best = ranking(texts.z, images.z)[number, :5]
        assert [picture.image[0, 0, 0] for picture in strip.pictures] == best.tolist()
        assert [picture.framed for picture in strip.pictures] == [i == number for i in best]


def test_pictures_are_shown_with_the_captions_they_find(found):
    test, images, texts, objective = found
    gallery = captions_found(images, texts, objective, test)
    for strip in gallery.strips:
        number = int(strip.pictures[0].image[0, 0, 0])
        best = ranking(images.z, texts.z)[number, :3]
        told = [
            ("✓ " if test.ids[i] == test.ids[number] else "· ") + test.captions[i] for i in best
        ]
        assert list(strip.after) == told


def test_of_few_pairs_no_more_is_said_than_there_is(found):
    test, images, texts, objective = found
    few = HeldOut(test.images[4:7], test.captions[4:7], test.ids[4:7])
    sides = [Embedded(side.z[4:7], side.log_std[4:7]) for side in (images, texts)]
    assert "the 3 test images that each" in pictures_found(*sides, objective, few).caption
    assert "the 3 captions that each" in captions_found(*sides, objective, few).caption
    pictures = Split(np.stack([*few.images] * 2))
    dataset: Any = SimpleNamespace(
        test=PairSplit(pictures, tuple((f"number {i}",) for i in range(6))), classes={}
    )
    chance = retrieval.chance(dataset)
    ways = ("image to text", "text to image")
    assert chance.as_json() == pytest.approx(
        {f"{w}, recall@{k}": k / 6 for w in ways for k in (1, 5)}
    )
    told = progress(dict.fromkeys(("trained", "untrained", "chance"), chance))
    assert told.startswith("In training, text to image, recall@5 went from 83.3% to 83.3%")


def test_any_caption_is_text_of_the_page(found):
    test, images, texts, objective = found
    everything = HeldOut(test.images, [CHINESE, DOLLARS] * 20, np.arange(40) % 2)
    for gallery in (
        pictures_found(images, texts, objective, everything),
        captions_found(images, texts, objective, everything),
    ):
        page = gallery_html(gallery)
        assert CHINESE in page
        assert DOLLARS in page


def test_training_images_stand_with_what_the_encoder_sees_and_their_captions():
    images = np.broadcast_to(np.arange(20)[:, None, None, None], (20, 4, 4, 3)).astype(np.uint8)
    captions = tuple((f"{i}", "x" * 1000, f"{i} again", "a fourth one") for i in range(20))
    gallery = training_pairs(
        PairSplit(Split(images), captions), lambda split, rows: (take(split, rows) / 255,)
    )
    assert len(gallery.strips) == 8
    for strip in gallery.strips:
        image, view = strip.pictures
        np.testing.assert_array_equal(view.image, image.image / 255)
        number = str(image.image[0, 0, 0])
        assert [strip.after[0], strip.after[2]] == [number, f"{number} again"]
        assert len(strip.after) == 3
        assert strip.after[1] == "x" * 159 + "…"
