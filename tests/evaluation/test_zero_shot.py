import numpy as np
import pytest

from jaxcon.evaluation.zero_shot import zero_shot_accuracy


def _slowly(scores, labels):
    total = 0.0
    for image, label in zip(scores.tolist(), labels.tolist(), strict=True):
        means = [sum(prompts) / len(prompts) for prompts in image]
        best = [number for number, mean in enumerate(means) if mean == max(means)]
        total += (label in best) / len(best)
    return total / len(labels)


@pytest.mark.parametrize("levels", [1, 2, 4, 1000])
def test_equals_a_loop_with_ties(levels):
    rng = np.random.default_rng(levels)
    # Sums of two small whole numbers, halved: means are exact, ties are ties in both.
    scores = rng.integers(0, levels, (60, 5, 2)).astype(float)
    labels = rng.integers(0, 5, 60)
    found = zero_shot_accuracy(scores, labels)
    assert found == pytest.approx(_slowly(scores, labels), abs=1e-12)


def test_prompts_of_a_class_vote_together():
    scores = np.array([[[1.0, -1.0], [0.2, 0.2]]])
    assert zero_shot_accuracy(scores, np.array([1])) == 1.0


def test_equal_scores_are_at_chance():
    assert zero_shot_accuracy(np.zeros((8, 4, 3)), np.arange(8) % 4) == 0.25


def test_bad_arguments_are_named():
    scores = np.zeros((3, 2, 1))
    with pytest.raises(ValueError, match=r"labels must be from 0 to 1, got 0 to 2"):
        zero_shot_accuracy(scores, np.arange(3))
    with pytest.raises(ValueError, match=r"labels must be \[n\]"):
        zero_shot_accuracy(scores, np.zeros(2, int))
    with pytest.raises(ValueError, match=r"scores must be \[n, classes, prompts\]"):
        zero_shot_accuracy(scores[..., 0], np.zeros(3, int))
    with pytest.raises(ValueError, match="image 1 has a score that is NaN"):
        zero_shot_accuracy(np.array([[[0.0]], [[np.nan]]]), np.zeros(2, int))
