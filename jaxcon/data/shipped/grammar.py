"""Scenes in words: four grades of specificity, several phrasings of each.

    1  that there is something          "a picture with an object"
    2  shapes, or one other attribute   "a star and a ring", "there is a red object"
    3  shapes and one attribute more    "a red circle and a blue square"
    4  everything about the scene       "a small red circle at the top left above a large blue
                                        square at the bottom left on a dark striped background"

A caption of grade 1 is true of every scene, one of grade 4 of hardly any other.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxcon.data.shipped.drawing import Draws

GRADES = (1, 2, 3, 4)
SIZES = ("small", "large")
POSITIONS = ("top left", "top right", "bottom left", "bottom right")
_COUNTS = ("one object", "two objects", "three objects")

_GENERAL = (
    "a picture with an object",
    "an image that shows something",
    "there is something to see",
    "a picture of something",
)
_FRAMES = ("{}", "a picture of {}", "a picture with {}", "an image that shows {}", "there is {}")
_PLURAL_FRAMES = (*_FRAMES[:-1], "there are {}")


class Thing(NamedTuple):
    """One object of a scene."""

    shape: str
    colour: str
    size: str
    position: str


class Scene(NamedTuple):
    """All that a caption may mention: one to three objects in different corners, and the ground."""

    things: tuple[Thing, ...]
    tone: str
    texture: str


def caption(scene: Scene, grade: int, draws: Draws) -> str:
    """Returns a true sentence about the scene; objects are named in random order.

    Example:
      >>> scene = Scene((Thing("star", "orange", "small", "top left"),), "dark", "plain")
      >>> caption(scene, 3, Draws(seed=0, stream=0))
      'a picture of an orange star'

    Args:
      scene: with one to three objects.
      grade: from 1, true of every scene, to 4, which says everything.
      draws: random numbers that decide what is said and how.
    """
    if grade == 1:
        return _choose(_GENERAL, draws)
    if grade == 2:
        told = _shapes_or_one_attribute(scene, draws)
        frames = _PLURAL_FRAMES if told in _COUNTS[1:] else _FRAMES
        return _choose(frames, draws).format(told)
    things = [scene.things[i] for i in draws.order(len(scene.things))]
    frame = _choose(_FRAMES, draws)
    if grade == 3:
        return frame.format(_listed(_with_one_attribute(things, draws)))
    return frame.format(f"{_placed(things, draws)} on a {_ground(scene)} background")


def _choose(options: tuple[str, ...], draws: Draws) -> str:
    return options[draws.integer(len(options))]


def _shapes_or_one_attribute(scene: Scene, draws: Draws) -> str:
    """Names, half of the time, what the objects are, as nouns come before adjectives."""
    if draws.integer(2):
        order = draws.order(len(scene.things))
        return _listed([_with_article(scene.things[i].shape) for i in order])
    thing = scene.things[draws.integer(len(scene.things))]
    return (
        _with_article(f"{thing.colour} object"),
        f"a {thing.size} object",
        f"an object at the {thing.position}",
        _COUNTS[len(scene.things) - 1],
        f"a {_ground(scene)} background",
    )[draws.integer(5)]


def _with_one_attribute(things: list[Thing], draws: Draws) -> list[str]:
    """Names the shapes with all colours, all sizes or all corners.

    Colours alone nearly tell one picture from the others; sizes and corners do not, so these captions
    cannot be understood without the shapes.
    """
    kind = draws.integer(3)
    if kind == 0:
        return [_with_article(f"{thing.colour} {thing.shape}") for thing in things]
    if kind == 1:
        return [f"a {thing.size} {thing.shape}" for thing in things]
    return [f"{_with_article(thing.shape)} at the {thing.position}" for thing in things]


def _placed(things: list[Thing], draws: Draws) -> str:
    texts = [f"a {t.size} {t.colour} {t.shape} at the {t.position}" for t in things]
    relation = _relation(things[0], things[1]) if len(things) == 2 else None
    if relation and draws.integer(2):
        return f"{texts[0]} {relation} {texts[1]}"
    return _listed(texts)


def _relation(first: Thing, second: Thing) -> str | None:
    """Says where the first lies as seen from the second; None across a diagonal."""
    rows, columns = zip(first.position.split(), second.position.split(), strict=True)
    if columns[0] == columns[1]:
        return "above" if rows[0] == "top" else "below"
    if rows[0] == rows[1]:
        return f"{columns[0]} of" if columns[0] == "left" else "right of"
    return None


def _listed(texts: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def _ground(scene: Scene) -> str:
    return f"{scene.tone} {scene.texture}"


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
