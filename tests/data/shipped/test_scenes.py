"""Scenes: captions that are true, combinations that only the test split holds, and preparation."""

import hashlib
import itertools
import math
import re

import numpy as np
import pytest

from jaxcon.data.readers.tfds_records import Part, TfdsRecords
from jaxcon.data.shipped import scenes
from jaxcon.data.shipped.drawing import COLOURS, SHAPES, TEXTURES, TONES, Draws
from jaxcon.data.shipped.grammar import GRADES, POSITIONS, SIZES, Scene, Thing, caption
from jaxcon.data.shipped.scenes import held_out, make_example, sample_scene
from jaxcon.data.sources import load
from tests.data.processes import NO_TENSORFLOW, start

THING = r"an? (?:(small|large) )?(?:(red|orange|yellow|green|cyan|blue|purple|pink) )?"
THING += (
    r"(circle|square|triangle|star|cross|ring|object)(?: at the ((?:top|bottom) (?:left|right)))?"
)
FRAME = r"(?:a picture (?:of|with) |an image that shows |there (?:is|are) )?"


@pytest.fixture(scope="module")
def examples():
    return [make_example(number, test=number % 2 == 1) for number in range(1200)]


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """The builder's own path on a hundredth of the scenes."""
    folder = tmp_path_factory.mktemp("few")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "SPLITS", {"train": 100, "validation": 10, "test": 10})
        load("scenes", data_dir=folder)
    return folder


def told(text):
    """What a caption of grade 3 or 4 says, read by a regular expression: (things, ground).

    A thing is (size, colour, shape, position), "" where it is not told; things are sorted.
    """
    body, _, ground = re.sub(f"^{FRAME}", "", text).partition(" on a ")
    things = re.split(r", | and | above | below | left of | right of ", body)
    parsed = [re.fullmatch(THING, thing) for thing in things]
    assert all(parsed), text
    return sorted(match.groups("") for match in parsed if match), ground


def test_the_data_are_the_same_on_every_machine():
    digest = hashlib.sha256()
    for number, test in itertools.product(range(100), (False, True)):
        example = make_example(number, test=test)
        digest.update(example.image.tobytes())
        digest.update("\n".join(example.captions).encode())
    assert digest.hexdigest() == "18aa609654c326bea08831d6a8535e98a57a525cac92d75cdf3bc1def4fd9371"


def test_prepared_splits_hold_the_examples_with_their_attributes(few):
    prepared = TfdsRecords("scenes", few)
    first = 0
    for split, size in {"train": 100, "validation": 10, "test": 10}.items():
        numbers = range(first, first + size)
        wanted = {
            example.image.tobytes(): example
            for example in (make_example(number, test=split == "test") for number in numbers)
        }
        first += size
        records = list(prepared.read(Part(split, np.arange(size))))
        assert len(wanted) == len(records) == size
        for record in records:
            example = wanted.pop(record["image"].tobytes())
            assert [t.decode() for t in record["captions"]["text"]] == list(example.captions)
            assert list(record["captions"]["grade"]) == [1, 2, 3, 4]
            objects = record["objects"]
            names = zip(*(objects[f] for f in Thing._fields), strict=True)
            things = tuple(
                Thing(SHAPES[s], list(COLOURS)[c], SIZES[z], POSITIONS[p]) for s, c, z, p in names
            )
            tone, texture = record["background"]["tone"], record["background"]["texture"]
            assert Scene(things, list(TONES)[tone], TEXTURES[texture]) == example.scene


def test_scenes_load_as_images_without_classes(few):
    dataset = load("scenes", data_dir=few)
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [
        100,
        10,
        10,
    ]
    assert dataset.train.image_shape == (48, 48, 3)
    assert dataset.train.labels is None


def test_preparing_needs_no_tensorflow(tmp_path):
    code = f"""{NO_TENSORFLOW}
from jaxcon.data.shipped import scenes
from jaxcon.data.sources import load
scenes.SPLITS = {{"train": 4, "validation": 2, "test": 2}}
print(len(load("scenes").train))
"""
    process = start(code, cache=tmp_path)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out.strip()) == (0, "4"), err


def test_captions_of_grade_4_tell_everything(examples):
    for example in examples:
        scene = example.scene
        full, ground = told(example.captions[3])
        assert full == sorted((t.size, t.colour, t.shape, t.position) for t in scene.things)
        assert ground == f"{scene.tone} {scene.texture} background"


def test_captions_of_grade_3_tell_shapes_and_all_colours_or_sizes_or_corners(examples):
    kinds = []
    for example in examples:
        some, ground = told(example.captions[2])
        assert ground == ""
        known = {
            "size": [(t.size, "", t.shape, "") for t in example.scene.things],
            "colour": [("", t.colour, t.shape, "") for t in example.scene.things],
            "position": [("", "", t.shape, t.position) for t in example.scene.things],
        }
        [kind] = [kind for kind, things in known.items() if sorted(things) == some]
        kinds.append(kind)
    shares = [kinds.count(kind) / len(kinds) for kind in ("size", "colour", "position")]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.06)


def test_relations_are_true(examples):
    place = {p: (i // 2, i % 2) for i, p in enumerate(POSITIONS)}
    seen = set()
    for example in examples:
        for relation in (" above ", " below ", " left of ", " right of "):
            if relation in example.captions[3]:
                both = re.findall(r"at the (\w+ \w+)", example.captions[3])
                (y1, x1), (y2, x2) = (place[p] for p in both)
                offset = (np.sign(y1 - y2), np.sign(x1 - x2))
                assert offset == {
                    " above ": (-1, 0), " below ": (1, 0), " left of ": (0, -1), " right of ": (0, 1)
                }[relation]  # fmt: skip
                seen.add(relation)
    assert len(seen) == 4


def test_captions_of_grade_2_tell_shapes_or_one_true_thing(examples):
    kinds = []
    for example in examples:
        text, things = re.sub(f"^{FRAME}", "", example.captions[1]), example.scene.things
        number = {"one object": 1, "two objects": 2, "three objects": 3}.get(text)
        if number:
            assert number == len(things)
            assert ("there are" in example.captions[1]) <= (number > 1)
            kinds.append("count")
        elif text.endswith("background"):
            assert text == f"a {example.scene.tone} {example.scene.texture} background"
            kinds.append("ground")
        elif "object" in text:
            match = re.fullmatch(THING, text)
            assert match, text
            size, colour, _, position = match.groups()
            told_of = [(size, "size"), (colour, "colour"), (position, "position")]
            [(value, kind)] = [(value, kind) for value, kind in told_of if value]
            assert value in [getattr(thing, kind) for thing in things]
            kinds.append(kind)
        else:
            shapes = [part.split()[-1] for part in re.split(", | and ", text)]
            assert sorted(shapes) == sorted(thing.shape for thing in things)
            kinds.append("shapes")
    share = {kind: kinds.count(kind) / len(kinds) for kind in set(kinds)}
    assert share.pop("shapes") == pytest.approx(0.5, abs=0.06)
    assert set(share) == {"count", "ground", "size", "colour", "position"}
    assert list(share.values()) == pytest.approx([0.1] * 5, abs=0.04)


def test_specific_captions_fit_fewer_scenes(examples):
    counts = [len({e.captions[grade - 1] for e in examples}) for grade in GRADES]
    assert counts[0] == 4
    assert counts == sorted(counts)
    assert counts[3] > 0.95 * len(examples)


def test_articles_suit_their_nouns(examples):
    texts = " ".join(text for example in examples for text in example.captions) + " "
    assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", texts)


def test_an_unknown_combination_is_in_every_test_scene_and_in_no_other(examples):
    found = [
        [held_out(t, example.scene.tone, example.scene.texture) for t in example.scene.things]
        for example in examples
    ]
    assert all(any(row) for row in found[1::2])
    assert not any(any(row) for row in found[::2])


def test_held_out_combinations_are_an_eighth_of_every_attribute_and_follow_no_rule():
    names = (SHAPES, list(COLOURS), SIZES, POSITIONS, list(TONES), TEXTURES)
    rows = list(itertools.product(*names))
    kept = np.array([held_out(Thing(*row[:4]), *row[4:]) for row in rows])
    assert kept.sum() * 8 == len(rows) == 2304
    codes = np.array([[n.index(v) for n, v in zip(names, row, strict=True)] for row in rows])
    for chosen in itertools.combinations(range(6), 2):
        shares = shares_by(codes, kept, chosen)
        # No pair of values is seen always or never, and none tells much about being held out.
        assert 0 < min(shares) <= max(shares) <= 0.25
    # Of the six shapes, the other attributes exclude now none, now one or two, never all: under a
    # parity it would always be the same number.
    excluded = np.rint(6 * np.array(shares_by(codes, kept, range(1, 6))))
    assert {0, 1, 2} <= set(excluded.tolist()) <= {0, 1, 2, 3, 4, 5}


def shares_by(codes, kept, chosen):
    """The share that is held out, for each combination of the chosen attributes."""
    groups = np.unique(codes[:, list(chosen)], axis=0, return_inverse=True)[1].ravel()
    return (np.bincount(groups, kept) / np.bincount(groups)).tolist()


def test_objects_lie_in_different_corners_and_counts_are_even(examples):
    counts = np.bincount([len(example.scene.things) for example in examples])[1:]
    assert counts.sum() == 1200
    assert np.all(np.abs(counts - 400) < 4 * np.sqrt(1200 * 2 / 9))
    for example in examples:
        corners = [thing.position for thing in example.scene.things]
        assert len(set(corners)) == len(corners)


def test_the_ground_gives_no_attribute_away():
    """Statistics of the corner opposite to the only object, against what the object is."""
    rows, things = [], []
    for number in range(2400):
        if len(sample_scene(Draws(0, 5 * number), test=False).things) == 1:
            example = make_example(number, test=False)
            thing = example.scene.things[0]
            top, left = (24 * (word in thing.position) for word in ("top", "left"))
            corner = example.image[top : top + 20, left : left + 20].astype(float)
            rows.append([*corner.mean((0, 1)), *corner.std((0, 1))])
            things.append(thing)
    rows = np.array(rows)
    rows = (rows - rows.mean(0)) / rows.std(0)
    for field in Thing._fields:
        names = np.array([getattr(thing, field) for thing in things])
        groups = [rows[names == name] for name in np.unique(names)]
        # Between-group sum of squares of a standardized feature: chi-square with g - 1 degrees.
        between = sum(len(group) * group.mean(0) ** 2 for group in groups)
        degrees = len(groups) - 1
        assert np.all(between < degrees + 4.5 * np.sqrt(2 * degrees)), field


def test_other_seeds_give_other_scenes():
    assert make_example(0, test=False, seed=1).scene != make_example(0, test=False).scene


def test_captions_of_a_scene_vary():
    scene = make_example(1, test=False).scene
    texts = {caption(scene, 4, Draws(0, stream)) for stream in range(100)}
    assert len(texts) == 5 * math.factorial(len(scene.things))
