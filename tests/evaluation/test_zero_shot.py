import math

import numpy as np
import pytest

from jaxcon.evaluation.zero_shot import (
    class_embeddings,
    zero_shot_accuracy,
    zero_shot_scores,
)


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


def _clip(images, prompts):
    """Radford et al.'s formula, a class and an image at a time: the class each image is given."""
    weights = []
    for of_class in prompts:
        unit = [p / math.sqrt(sum(v * v for v in p)) for p in of_class]
        mean = sum(unit) / len(unit)
        weights.append(mean / math.sqrt(sum(v * v for v in mean)))
    return [max(range(len(weights)), key=lambda c: image @ weights[c]) for image in images]


def test_prompts_are_averaged_as_embeddings_as_clip_does():
    """Classes whose prompts agree to different degrees: there a mean of scores differs."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(10, 16))
    spread, scale = rng.uniform(0.1, 3, (10, 1, 1)), rng.uniform(1, 9, (10, 8, 1))
    prompts = (centres[:, None] + spread * rng.normal(size=(10, 8, 16))) * scale
    labels = rng.integers(0, 10, 400)
    images = (centres[labels] + 1.5 * rng.normal(size=(400, 16))) * rng.uniform(0.1, 9, (400, 1))
    expected = np.mean(np.array(_clip(images, prompts)) == labels)
    assert zero_shot_accuracy(zero_shot_scores(images, prompts), labels) == pytest.approx(expected)
    unit = prompts / np.linalg.norm(prompts, axis=2, keepdims=True)
    cosines = np.einsum("nd,cpd->ncp", images / np.linalg.norm(images, axis=1, keepdims=True), unit)
    assert zero_shot_accuracy(cosines, labels) != pytest.approx(expected, abs=0.01)
    ragged = [p[: 1 + i % 4] for i, p in enumerate(prompts)]
    expected = np.mean(np.array(_clip(images, ragged)) == labels)
    assert zero_shot_accuracy(zero_shot_scores(images, ragged), labels) == pytest.approx(expected)


def test_scale_shape_and_precision_of_the_embeddings_do_not_matter():
    rng = np.random.default_rng(1)
    images, prompts = rng.normal(size=(20, 2, 3)), rng.normal(size=(4, 5, 2, 3))
    expected = zero_shot_scores(images, prompts)
    np.testing.assert_allclose(zero_shot_scores(1e250 * images, 1e-250 * prompts), expected)
    low = zero_shot_scores(images.astype(np.float16), prompts.astype(np.float32))
    np.testing.assert_allclose(low, expected, atol=1e-2)
    assert expected.shape == (20, 4, 1)
    np.testing.assert_allclose(np.linalg.norm(class_embeddings(prompts), axis=1), 1)


def test_scores_that_are_equal_but_for_the_order_of_their_sum_tie():
    scores = np.array([[[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]]])
    assert scores[0, 0].sum() != scores[0, 1].sum()
    assert zero_shot_accuracy(scores, np.array([0])) == 0.5
    half = np.array([[[1000, 1, 0.5], [1000, 1, 0]]], np.float16)  # float16 cannot tell the means
    assert zero_shot_accuracy(half, np.array([0])) == 1.0
    infinite = np.array([[[-np.inf], [-np.inf], [0.0]], [[-np.inf], [-np.inf], [-np.inf]]])
    assert zero_shot_accuracy(infinite, np.array([2, 0])) == pytest.approx((1 + 1 / 3) / 2)


def test_bad_embeddings_and_labels_are_named():
    images, prompts = np.eye(3), np.ones((2, 4, 3))
    with pytest.raises(ValueError, match="images has 3, prompts has 2"):
        zero_shot_scores(images, prompts[..., :2])
    with pytest.raises(ValueError, match=r"prompts must be \[classes, prompts, \*features\]"):
        zero_shot_scores(images, prompts[:, :0])
    with pytest.raises(ValueError, match="class 1: 4 rows of features are not finite"):
        zero_shot_scores(images, prompts * [[[1]], [[np.nan]]])
    for labels in ([0, 0, 2**32], [0, 0, 2**80], [0, 0, -1]):
        with pytest.raises(ValueError, match="labels must be from 0 to 1"):
            zero_shot_accuracy(np.zeros((3, 2, 1)), labels)
    with pytest.raises(ValueError, match="labels must be whole numbers"):
        zero_shot_accuracy(np.zeros((3, 2, 1)), np.array([0, 1, 0.5]))


def test_cosines_of_zero_tie_whatever_the_rounding():
    """0.1 + 0.2 - 0.3 is 6e-17 and the same in another order -3e-17: an order, not a fit."""
    image = np.ones((1, 3))
    prompts = np.array([[[0.1, 0.2, -0.3]], [[-0.3, 0.2, 0.1]], [[0.2, -0.3, 0.1]]])
    for label in range(3):
        accuracy = zero_shot_accuracy(zero_shot_scores(image, prompts), np.array([label]))
        assert accuracy == pytest.approx(1 / 3)


def test_prompts_that_cancel_have_no_direction():
    rows = np.random.default_rng(0).normal(size=(50, 8))
    np.testing.assert_array_equal(class_embeddings(np.stack([rows, -3 * rows], axis=1)), 0)
