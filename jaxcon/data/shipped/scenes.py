"""Small pictures of one to three objects with captions: generated, so everything about them is known.

12,000 images of 48 x 48 pixels: every object has a shape, a colour, a size and a corner, the ground
a tone and a texture. Each image has four captions, from one that fits all images to one that says
everything (`grammar`). `load_pairs("scenes")` prepares them once, in less than a minute and without
TensorFlow; a single one is made immediately:

    >>> example = make_example(1, test=True)
    >>> example.image.shape, example.captions[0]
    ((48, 48, 3), 'a picture of something')
    >>> print(example.captions[3])
    a picture of a small orange ring at the top right on a light striped background

An eighth of the combinations of an object's attributes with those of its ground appear in no training
or validation image. Every test image shows at least one of them.

The data are a pure function of `SEED`: no generator is used whose stream might change, and no
arithmetic that might be rounded differently elsewhere (`jaxcon.data.shipped.drawing`).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxcon.data.shipped.drawing import (
    COLOURS,
    SHAPES,
    TEXTURES,
    TONES,
    Draws,
    add_noise,
    background,
    paint,
)
from jaxcon.data.shipped.grammar import GRADES, POSITIONS, SIZES, Scene, Thing, caption

SIDE = 48
SEED = 0
SPLITS = {"train": 10_000, "validation": 1_000, "test": 1_000}
_RADII = {"small": (8.4, 9.0), "large": (11.6, 12.2)}
_HOLD_OUT_STREAM = 2**63  # far from those of the examples
_SHIFT = 1.5  # pixels by which an object may lie off the centre of its quarter


def _draw_held_out() -> frozenset[tuple[Thing, str, str]]:
    """Draws, for each shape, corner and ground, two of the sixteen pairs of colour and size.

    They are drawn at random: with a rule, such as a pair of values or a parity of all five, a model
    could infer an attribute that it cannot see from those that it can.
    """
    pairs = [(colour, size) for colour in COLOURS for size in SIZES]
    draws = Draws(SEED, _HOLD_OUT_STREAM)
    return frozenset(
        (Thing(shape, *pairs[i], position), tone, texture)
        for shape in SHAPES
        for position in POSITIONS
        for tone in TONES
        for texture in TEXTURES
        for i in draws.order(len(pairs))[:2]
    )


_HELD_OUT = _draw_held_out()


def held_out(thing: Thing, tone: str, texture: str) -> bool:
    """Returns whether the combination is kept for the test: 288 of 2,304, drawn once.

    Example:
      >>> things = [Thing("star", c, s, "top left") for c in COLOURS for s in SIZES]
      >>> sum(held_out(thing, "dark", "plain") for thing in things), len(things)
      (2, 16)
    """
    return (thing, tone, texture) in _HELD_OUT


@functools.cache
def _choices(position: str, tone: str, texture: str) -> tuple[list[Thing], list[Thing]]:
    """Returns objects for a corner on a ground: those of all splits, and those of the test alone."""
    things = [Thing(*what, position) for what in itertools.product(SHAPES, COLOURS, SIZES)]
    unseen = [held_out(thing, tone, texture) for thing in things]
    seen = [thing for thing, new in zip(things, unseen, strict=True) if not new]
    return seen, list(itertools.compress(things, unseen))


def sample_scene(draws: Draws, *, test: bool) -> Scene:
    """Draws one to three objects, equally often, in different corners; the module explains `test`.

    Example:
      >>> scene = sample_scene(Draws(seed=0, stream=0), test=True)
      >>> any(held_out(thing, scene.tone, scene.texture) for thing in scene.things)
      True
    """
    tone, texture = list(TONES)[draws.integer(2)], TEXTURES[draws.integer(3)]
    corners = [POSITIONS[i] for i in draws.order(len(POSITIONS))[: 1 + draws.integer(3)]]
    things: list[Thing] = []
    for corner in corners:
        choices, unseen = _choices(corner, tone, texture)
        if test:  # the first corner is a random one already
            choices = choices + unseen if things else unseen
        things.append(choices[draws.integer(len(choices))])
    return Scene(tuple(things), tone, texture)


@dataclasses.dataclass(frozen=True)
class Example:
    """A scene with its image, uint8 `[48, 48, 3]`, and its captions, one a grade."""

    scene: Scene
    image: np.ndarray
    captions: tuple[str, ...]


def make_example(number: int, *, test: bool, seed: int = SEED) -> Example:
    """Makes the example of a number, without making any other first.

    The choice of what is seen, the ground, the objects, the noise and the words draw from separate
    streams, so that none of them reveals more about another than intended.

    Example:
      >>> make_example(0, test=False).captions[2]
      'there is a pink ring, an orange square and a green square'

    Args:
      number: 0 or more, different for each example of all splits.
      test: as for `sample_scene`.
      seed: seed of the whole dataset.
    """
    what, ground, objects, noise, words = (Draws(seed, 5 * number + part) for part in range(5))
    scene = sample_scene(what, test=test)
    image = background(ground, side=SIDE, tone=scene.tone, texture=scene.texture)
    for thing in scene.things:
        row, column = divmod(POSITIONS.index(thing.position), 2)
        x, y = ((0.25 + 0.5 * at) * SIDE + objects.between(-_SHIFT, _SHIFT) for at in (column, row))
        radius = objects.between(*_RADII[thing.size])
        paint(image, objects, shape=thing.shape, colour=thing.colour, centre=(x, y), radius=radius)
    captions = tuple(caption(scene, grade, words) for grade in GRADES)
    return Example(scene, add_noise(image, noise), captions)


class JaxconScenes(tfds.core.GeneratorBasedBuilder):
    """Objects on textured grounds with captions of four grades, 48 x 48 x 3."""

    VERSION = tfds.core.Version("3.0.0")
    RELEASE_NOTES = {  # noqa: RUF012
        "1.0.0": "10,000 train, 1,000 validation, 1,000 test.",
        "2.0.0": "Combinations are held out at random; captions of grades 2 and 3 need shapes.",
        "3.0.0": "Purple is bluer and pink paler, farther from each other.",
    }
    # Nothing is downloaded. Looking for checksums would need importlib_resources, which TFDS
    # uses without declaring it.
    url_infos = None

    def _info(self) -> tfds.core.DatasetInfo:
        named = tfds.features.ClassLabel
        return tfds.core.DatasetInfo(
            builder=self,
            description="One to three objects on a textured ground, with captions of four grades.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIDE, SIDE, 3)),
                    "captions": tfds.features.Sequence(
                        {"text": tfds.features.Text(), "grade": np.int32}
                    ),
                    "objects": tfds.features.Sequence(
                        {
                            "shape": named(names=list(SHAPES)),
                            "colour": named(names=list(COLOURS)),
                            "size": named(names=list(SIZES)),
                            "position": named(names=list(POSITIONS)),
                        }
                    ),
                    "background": {
                        "tone": named(names=list(TONES)),
                        "texture": named(names=list(TEXTURES)),
                    },
                }
            ),
        )

    def _split_generators(self, dl_manager: Any, /) -> dict[str, Any]:
        first, generators = 0, {}
        for name, size in SPLITS.items():
            generators[name] = self._generate_examples(range(first, first + size), name == "test")
            first += size
        return generators

    def _generate_examples(
        self, numbers: range, test: bool
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        from PIL import Image

        for number in numbers:
            example = make_example(number, test=test)
            yield (
                number,
                {
                    # TFDS encodes a PIL image with pillow, but an array with TensorFlow.
                    "image": Image.fromarray(example.image),
                    "captions": {"text": list(example.captions), "grade": list(GRADES)},
                    "objects": {
                        field: [getattr(thing, field) for thing in example.scene.things]
                        for field in Thing._fields
                    },
                    "background": {"tone": example.scene.tone, "texture": example.scene.texture},
                },
            )
