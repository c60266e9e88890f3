"""What a run is called: the grade is the collapse report's, and labels may take "healthy" away."""

from types import SimpleNamespace

import numpy as np
import pytest

import experiments.running.verdict
from experiments.images.evaluation import Accuracies, ahead
from experiments.running.verdict import verdict
from jaxcon.diagnostics import collapse_report

PAIRS = np.random.default_rng(0).normal(size=(2, 40, 16)) * 0.1 + np.random.default_rng(1).normal(
    size=(40, 16)
)
SETTINGS = {"temperature": 0.1, "of": "test images", "total": 40}


def few_labels(raw, untrained, trained):
    """What is ahead, from shares with one label and with five by features."""
    kinds = {"raw pixels": raw, "untrained encoder": untrained, "trained encoder": trained}
    return ahead(
        {
            name: Accuracies(linear=0.99, five_labels=(five, 0.02), one_label=(one, 0.05), knn=0.99)
            for name, (one, five) in kinds.items()
        }
    )


def test_the_words_are_those_of_the_collapse_report():
    (said,) = verdict(*PAIRS, **SETTINGS, ahead=few_labels((0.3, 0.4), (0.2, 0.3), (0.5, 0.6)))
    words = collapse_report(*PAIRS, temperature=0.1).verdict
    assert words.startswith("healthy: ")
    assert said == f"Collapse check on all 40 test images. {words[0].upper()}{words[1:]}."


@pytest.mark.parametrize(
    "words", ["narrow cone: mean cosine 0.97; so", "strange", "healthy enough"]
)
def test_any_grade_flows_through(monkeypatch, words):
    monkeypatch.setattr(
        experiments.running.verdict,
        "collapse_report",
        lambda *_, **__: SimpleNamespace(verdict=words),
    )
    said = verdict(*PAIRS, **SETTINGS, ahead=few_labels((0.9, 0.9), (0.2, 0.3), (0.5, 0.6)))
    assert said[0].endswith(f". {words[0].upper()}{words[1:]}.")
    assert said[1].startswith("With one label a class the trained encoder reaches 50.0%, less than")


@pytest.mark.parametrize(
    ("shares", "better", "sentence"),
    [
        (
            ((0.35, 0.4), (0.2, 0.3), (0.3, 0.6)),
            "raw pixels",
            "With one label a class the trained encoder reaches 30.0%, less than raw pixels (35.0%).",
        ),
        (
            ((0.2, 0.7), (0.4, 0.65), (0.3, 0.6)),
            "the untrained encoder and raw pixels",
            "With one label a class the trained encoder reaches 30.0%, less than the untrained "
            "encoder (40.0%); with five labels a class the trained encoder reaches 60.0%, less than "
            "raw pixels (70.0%) and the untrained encoder (65.0%).",
        ),
    ],
)
def test_an_encoder_of_less_use_than_what_it_had_to_beat_is_not_called_healthy(
    shares, better, sentence
):
    said = verdict(*PAIRS, **SETTINGS, ahead=few_labels(*shares))
    assert "ealthy" not in said[0]
    assert f"Not collapsed, yet less useful than {better}: rows spread over" in said[0]
    assert said[1] == sentence


def test_scores_that_print_alike_are_alike():
    alike = few_labels((0.30004, 0.6), (0.30004, 0.6), (0.29996, 0.6))
    assert len(verdict(*PAIRS, **SETTINGS, ahead=alike)) == 1


def test_it_says_of_how_many_pairs_it_is():
    (said,) = verdict(*PAIRS, 0.1, of="test pairs", total=5000)
    assert said.startswith("Collapse check on 40 of 5,000 test pairs. ")
    (said,) = verdict(PAIRS[0][:1], PAIRS[1][:1], 0.1, of="test images", total=1)
    assert said == "Collapse check: there are too few test images for one."
