"""What one run of the study leaves: the record, and the names that its file has."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

from experiments.pairs.scores import Scores

Curve = Sequence[float | None]  # step by step; None where it was not finite


@dataclasses.dataclass(frozen=True)
class Deviations:
    """How the predicted log deviations follow what is known of captions and images.

    Attributes:
      grade: rank correlation of a caption's with its grade.
      grade_from_2: the same without captions of grade 1.
      objects: rank correlation of an image's with the number of its objects.
      size: of an image of a single object, with the size of that.
      by_grade: mean of the captions of a grade.
      by_objects: mean of the images of so many objects.
    """

    grade: float
    grade_from_2: float
    objects: float
    size: float
    by_grade: Mapping[str, float]
    by_objects: Mapping[str, float]

    def correlations(self) -> dict[str, float]:
        """Return the rank correlations by the names that files have for them."""
        return {name: getattr(self, field) for field, name in _CORRELATIONS.items()}

    def as_json(self) -> dict[str, Any]:
        """Return the values by the names that the record of a run has for them."""
        return {name: getattr(self, field) for field, name in _DEVIATIONS.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the deviations of such values."""
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
    """What a run leaves.

    Attributes:
      device: kind of what it ran on.
      chance_loss: loss of equal embeddings.
      warmup: steps in which the learning rate rises.
      loss: step by step.
      gradient_norm: step by step.
      skipped: updates that were refused.
      scalars: what was learned beside the encoders, at the end, by name; None where not finite.
      scores: on images not learned from; None where the embeddings cannot be compared.
      deviations: of the part "seeds", where the loss has deviations that are finite.
      verdict: of the collapse report, or "not finite".
      effective_rank: of the normalized embeddings.
      uniformity: of the normalized embeddings.
      chance: scores of a random ranking and a random choice.
      seconds: that the run took.
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
        """Return the values by the names of the fields, those of scores and deviations by theirs."""
        return vars(self) | {
            "scores": self.scores and self.scores.as_json(),
            "deviations": self.deviations and self.deviations.as_json(),
            "chance": self.chance.as_json(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the record of such values; others are left out.

        Raises:
          KeyError: a field is missing.
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
