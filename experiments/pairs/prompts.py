"""The prompts by which an image's attributes are asked for."""

from collections.abc import Sequence

from jaxcon.data.shipped.drawing import SHAPES

FRAMES = ("{}", "a picture of {}", "there is {}")
# What is large for a star is not what is large for a square: sizes are asked for by shape.
PROMPTS = {
    "shape": ("a {}",),
    "colour": ("a {} object",),
    "size": tuple(f"a {{}} {shape}" for shape in SHAPES),
    "position": ("an object at the {}",),
}


def make_prompts(attribute: str, values: Sequence[str]) -> list[str]:
    """Return the prompts of every value, those of the first value first, each in every frame.

    An image fits a value as well as it fits the best of its prompts, averaged over frames as
    `Objective.average` says.

    >>> make_prompts("colour", ["red", "orange"])[2:4]
    ['there is a red object', 'an orange object']
    """
    nouns = [prompt.format(value) for value in values for prompt in PROMPTS[attribute]]
    nouns = [noun.replace("a orange", "an orange") for noun in nouns]
    return [frame.format(noun) for noun in nouns for frame in FRAMES]
