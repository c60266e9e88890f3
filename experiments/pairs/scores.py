"""The scores of a dual encoder on test images, and their names in files and tables."""

import dataclasses
from collections.abc import Mapping
from typing import Self

from jaxcon import report

_WAYS = {"image_to_text": "image to text", "text_to_image": "text to image"}
_RECALL, _ZERO_SHOT = ", recall@", "zero-shot "


@dataclasses.dataclass(frozen=True)
class Scores:
    """Shares of test images and captions that find their counterparts, each from 0 to 1.

    Attributes:
      image_to_text: recall@k of the captions that images find, by k.
      text_to_image: recall@k of the images that captions find, by k.
      zero_shot: accuracy of classification by prompts, by attribute.
    """

    image_to_text: Mapping[int, float]
    text_to_image: Mapping[int, float]
    zero_shot: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def mean_recall(self, k: int = 1) -> float:
        """Returns recall@k, averaged over both ways.

        Example:
          >>> Scores({1: 0.5}, {1: 0.25}).mean_recall()
          0.375
        """
        return (self.image_to_text[k] + self.text_to_image[k]) / 2

    def at(self, k: int) -> Self:
        """Returns the scores with recall at one rank only."""
        one = {way: {k: getattr(self, way)[k]} for way in _WAYS}
        return dataclasses.replace(self, **one)

    def as_json(self) -> dict[str, float]:
        """Returns the scores by their names in files and tables.

        Example:
          >>> Scores({1: 0.5}, {1: 0.25}, {"shape": 0.75}).as_json()
          {'image to text, recall@1': 0.5, 'text to image, recall@1': 0.25, 'zero-shot shape': 0.75}
        """
        recalls = {
            recall_name(way, k): recall for way in _WAYS for k, recall in getattr(self, way).items()
        }
        return recalls | {f"{_ZERO_SHOT}{name}": share for name, share in self.zero_shot.items()}

    @classmethod
    def from_json(cls, named: Mapping[str, float]) -> Self:
        """Returns the scores from values of `as_json`.

        Example:
          >>> scores = Scores({1: 0.5, 5: 1.0}, {1: 0.25, 5: 0.5}, {"shape": 0.75})
          >>> Scores.from_json(scores.as_json()) == scores
          True
        """

        def after(start: str) -> dict[str, float]:
            starting = {name: share for name, share in named.items() if name.startswith(start)}
            return {name.removeprefix(start): share for name, share in starting.items()}

        recalls = {
            way: {int(k): share for k, share in after(f"{name}{_RECALL}").items()}
            for way, name in _WAYS.items()
        }
        return cls(**recalls, zero_shot=after(_ZERO_SHOT))


def recall_name(way: str, k: int) -> str:
    """Returns the name of recall@k of a field of `Scores`.

    Example:
      >>> recall_name("text_to_image", 5)
      'text to image, recall@5'
    """
    return f"{_WAYS[way]}{_RECALL}{k}"


def table(scores: Mapping[str, Mapping[str, float]]) -> report.Table:
    """Returns the table: a row for each evaluation, chance in the last column.

    Args:
      scores: `as_json` of the trained encoder, the untrained one and chance, as in results.json.
    """
    rows = [(name, *(kind[name] for kind in scores.values())) for name in scores["trained"]]
    return report.Table(("on test images", *scores), rows, emphasis="trained")
