"""What one run of the study records, and the names in its file."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

from experiments.pairs.scores import Scores

Curve = Sequence[float | None]  # step by step; None where it was not finite


@dataclasses.dataclass(frozen=True)
class Deviations:
    """How the predicted log deviations relate to what is known about captions and images.

    Attributes:
      grade: rank correlation of a caption's deviation with its grade.
      grade_from_2: the same without captions of grade 1.
      objects: rank correlation of an image's deviation with its number of objects.
      size: rank correlation with the size of the object, for images of a single one.
      by_grade: mean over the captions of each grade.
      by_objects: mean over the images of each number of objects.
    """

    grade: float
    grade_from_2: float
    objects: float
    size: float
    by_grade: Mapping[str, float]
    by_objects: Mapping[str, float]

    def correlations(self) -> dict[str, float]:
        """Returns the rank correlations by their names in files."""
        return {name: getattr(self, field) for field, name in _CORRELATIONS.items()}

    def as_json(self) -> dict[str, Any]:
        """Returns the values by their names in the file of a run."""
        return {name: getattr(self, field) for field, name in _DEVIATIONS.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Returns the deviations from values of `as_json`."""
        return cls(**{field: content[name] for field, name in _DEVIATIONS.items()})


_CORRELATIONS = {
    "grade": "text with grade",
    "grade_from_2": "text with grade, from 2 on",
    "objects": "image with number of objects",
    "size": "image with size of a single object",
}
_DEVIATIONS = _CORRELATIONS | {"by_grade": "text mean", "by_objects": "image mean"}


@dataclasses.dataclass(frozen=True)
class Record:
    """The record of a run.

    Attributes:
      device: kind of device it ran on.
      chance_loss: loss of equal embeddings.
      warmup: number of steps in which the learning rate rises.
      loss: loss, step by step.
      gradient_norm: norm of the gradient, step by step.
      skipped: number of updates that were refused.
      scalars: what was learned besides the encoders, at the end, by name; None if not finite.
      scores: scores on images not used for training; None if the embeddings cannot be compared.
      deviations: in the part "seeds", if the loss has deviations and they are finite.
      verdict: verdict of the collapse report, or "not finite".
      effective_rank: effective rank of the normalized embeddings.
      uniformity: uniformity of the normalized embeddings.
      chance: scores of a random ranking and a random choice.
      seconds: how long the run took.
    """

    device: str
    chance_loss: float
    warmup: int
    loss: Curve
    gradient_norm: Curve
    skipped: int
    scalars: Mapping[str, float | None]
    scores: Scores | None
    deviations: Deviations | None
    verdict: str
    effective_rank: float
    uniformity: float
    chance: Scores
    seconds: float

    @property
    def scored(self) -> Scores:
        """The scores; a run whose embeddings cannot be compared ranks at random."""
        return self.chance if self.scores is None else self.scores

    def as_json(self) -> dict[str, Any]:
        """Returns the values by the names of the fields, nested ones by their own `as_json`."""
        return vars(self) | {
            "scores": self.scores and self.scores.as_json(),
            "deviations": self.deviations and self.deviations.as_json(),
            "chance": self.chance.as_json(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Returns the record from values of `as_json`; others are ignored.

        Raises:
          KeyError: if a field is missing.
        """
        fields = {field.name: content[field.name] for field in dataclasses.fields(cls)}
        scores, deviations = fields["scores"], fields["deviations"]
        return cls(
            **fields
            | {
                "scores": scores and Scores.from_json(scores),
                "deviations": deviations and Deviations.from_json(deviations),
                "chance": Scores.from_json(fields["chance"]),
            }
        )
