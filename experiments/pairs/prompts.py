"""The prompts that ask for an image's attributes."""

from collections.abc import Sequence

from jaxcon.data.shipped.drawing import SHAPES

FRAMES = ("{}", "a picture of {}", "there is {}")
# A large star is not as large as a large square: sizes are asked for shape by shape.
PROMPTS = {
    "shape": ("a {}",),
    "colour": ("a {} object",),
    "size": tuple(f"a {{}} {shape}" for shape in SHAPES),
    "position": ("an object at the {}",),
}


def make_prompts(attribute: str, values: Sequence[str]) -> list[str]:
    """Returns the prompts for all values, in their order, each prompt in every frame.

    An image fits a value as well as it fits the best of its prompts, averaged over frames as
    `Objective.average` says.

    Example:
      >>> make_prompts("colour", ["red", "orange"])[2:4]
      ['there is a red object', 'an orange object']
    """
    nouns = [prompt.format(value) for value in values for prompt in PROMPTS[attribute]]
    nouns = [noun.replace("a orange", "an orange") for noun in nouns]
    return [frame.format(noun) for noun in nouns for frame in FRAMES]
