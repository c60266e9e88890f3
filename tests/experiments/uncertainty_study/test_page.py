"""Protocol and page: what they say of records, and that the committed ones belong together."""

import collections
import json
import pathlib
import shutil
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import pytest

from experiments import uncertainty
from experiments.pairs.captions import GRADE_WEIGHTS
from experiments.uncertainty import write_results
from experiments.uncertainty_study.comparisons import (
    Stability,
)
from experiments.uncertainty_study.losses import NAMES, make_objective
from experiments.uncertainty_study.pieces import (
    estimate,
    load,
    pieces,
)
from experiments.uncertainty_study.protocol import SIZES, protocol_text
from experiments.uncertainty_study.statistics import (
    Interval,
)
from tests.experiments.uncertainty_study.records import (
    COMPARISONS,
    TINY,
    change,
    everything,
    measured,
    names,
    piece_of,
)


def test_the_protocol_can_be_run_in_three_hours_and_keeps_its_seeds_apart():
    for protocol in SIZES.values():
        assert len(protocol.seeds) >= 5
        assert protocol.trial_seed not in protocol.seeds
        assert protocol.losses == NAMES
        assert len(set(names(pieces(protocol)))) == len(pieces(protocol))
    small = SIZES["small"]
    assert sum(estimate(piece, {}, small) for piece in pieces(small)) < 3 * 3600
    assert {"gaussian-shared", "clip"} == set(COMPARISONS["gaussian"])


def test_the_protocol_says_what_the_code_does():
    text = protocol_text(SIZES["small"])
    weights = " : ".join(f"{GRADE_WEIGHTS[grade]:g}" for grade in (1, 2, 3, 4))
    assert f"with the weights {weights} of grades" in text
    for name in NAMES:
        assert f"- **{name}**:" in text
        for start in make_objective(name).scalars.values():
            described = text.split(f"- **{name}**:")[1].split("\n- ")[0]
            assert f"{start:g}" in described or name == "csd-clip"


def test_the_committed_page_is_that_of_the_committed_records(tmp_path, monkeypatch):
    monkeypatch.setattr(uncertainty, "COMPARISONS", COMPARISONS)
    docs, small = pathlib.Path(__file__).parents[3] / "docs", SIZES["small"]
    (tmp_path / "uncertainty").mkdir()
    if (docs / "uncertainty" / "discussion.md").exists():
        shutil.copy(docs / "uncertainty" / "discussion.md", tmp_path / "uncertainty")
    records = load(docs / "uncertainty" / "pieces", small)
    write_results(tmp_path, "uncertainty", small, records)
    figures = {path.relative_to(docs) for path in (docs / "uncertainty").glob("*.svg")}
    assert figures == {path.relative_to(tmp_path) for path in tmp_path.glob("uncertainty/*.svg")}
    for name in ("uncertainty.md", "uncertainty/results.json"):
        assert (docs / name).read_bytes() == (tmp_path / name).read_bytes()
    for name in figures:
        committed, again = drawing(docs / name), drawing(tmp_path / name)
        assert committed.texts == again.texts
        assert committed.marks.keys() == again.marks.keys()
        for style, places in committed.marks.items():
            np.testing.assert_allclose(again.marks[style], places, atol=1.0)


class Drawing(NamedTuple):
    """What a figure shows; another matplotlib or font may write it in other bytes.

    Attributes:
      texts: labels, titles and names of the legend.
      marks: places of each mark, in points, `[n, 2]`, by its style.
    """

    texts: list[str]
    marks: dict[str, list[tuple[float, float]]]


def drawing(path):
    """Read an SVG file of matplotlib, which writes each text as a comment beside its glyphs."""
    builder = ElementTree.TreeBuilder(insert_comments=True)
    root = ElementTree.parse(path, ElementTree.XMLParser(target=builder)).getroot()
    texts, marks = [], collections.defaultdict(list)
    for element in root.iter():
        if element.tag is ElementTree.Comment:
            texts.append(element.text.strip())
        elif element.get("x") and element.get("y"):
            place = float(element.get("x")), float(element.get("y"))
            marks[element.get("style")].append(place)
    return Drawing(texts, dict(marks))


def page(records, tmp_path):
    write_results(tmp_path, "study", TINY, records)
    return (tmp_path / "study.md").read_text()


def test_the_page_without_results_shows_the_protocol(tmp_path):
    text = page({}, tmp_path)
    assert "No results yet: **0 of 27 runs are done.**" in text
    assert "Not yet: 27 runs are missing" in text
    assert "### How the answer is decided" in text
    assert "](" not in text
    assert json.loads((tmp_path / "study" / "results.json").read_text())["done"] == 0


def test_the_page_with_some_results_gives_no_answer(tmp_path):
    records = {
        p: r for p, r in everything().items() if p.part == "rates" or p.name == "seeds-clip-s0"
    }
    text = page(records, tmp_path)
    assert "**7 of 27 runs are done.**" in text
    assert "| loss | 0.001 | 0.01 | chosen |" in text
    assert "both ways (a random ranking: 1.0)" in text
    assert "| gaussian | 60.0 | 50.0 | 0.001, the lowest |" in text
    assert "| clip | 1 | 0 | 50.0 | 50.0 | 50.0 | 90.0 |" in text
    assert "| gaussian | 0 | 0 | – | – | – | – |" in text  # noqa: RUF001
    assert "Not yet: 20 runs are missing" in text
    assert "### Stability" not in text


def test_the_page_with_all_results_answers(tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "discussion.md").write_text("What surprised us.\n")
    text = page(everything(), tmp_path)
    assert "**27 of 27 runs are done.** They took 0.0 hours in all, 47 pairs a second" in text
    assert "| clip | temperature | 0.5 | 0.250 ± 0.000 |" in text
    assert "| gaussian | 3 | 0 | 61.0 ± 2.5 |" in text
    assert "1. Is training more stable? **no: no difference shown**" in text
    assert "2. Is the joint space better? **yes** (recall@1 against clip +10.0 ± 0.0" in text
    assert "3. Do general captions get the larger deviation? **yes**" in text
    assert "What surprised us." in text
    results = json.loads((tmp_path / "study" / "results.json").read_text())
    assert results["learning rates"] == dict.fromkeys(TINY.losses, 1e-3)
    assert results["differences of recall@1"]["gaussian - clip"]["mean"] == pytest.approx(0.1)
    for name in ("scores", "stability", "deviations"):
        assert f"](study/{name}.svg)" in text
    figures = {path: path.read_bytes() for path in (tmp_path / "study").glob("*.svg")}
    assert len(figures) == 3
    assert page(everything(), tmp_path) == text
    assert all(path.read_bytes() == drawn for path, drawn in figures.items())


def test_one_of_spikes_and_variation_decides_if_the_other_does_not_contradict():
    steady, calm, rough = (Interval(mean, 0.5, 3) for mean in (-1.0, 0.0, 1.0))
    answers = {
        (steady, calm): "more stable",
        (calm, steady): "more stable",
        (rough, None): "less stable",
        (steady, rough): "no difference shown",
        (calm, None): "no difference shown",
    }
    for (spikes, variation), answer in answers.items():
        found = Stability(0, 0, 1.0, spikes, variation, 12)
        assert found.answer == answer


def test_a_worse_space_and_no_correlation_are_told(tmp_path):
    records = everything()
    for piece in records:
        if piece.part == "seeds" and piece.loss == "gaussian":
            records[piece] = measured(piece, 1e-3, recall=0.45, grade=0.02)
    change(records, piece_of(records, "rates", "clip"), skipped=1, scores=None)
    change(records, piece_of(records, "seeds", "clip"), verdict="complete collapse: all rows")
    text = page(records, tmp_path)
    assert "| clip | 1.0 (not finite) | 40.0 | 0.01, the highest |" in text
    assert "| clip | 3 | 1 |" in text
    assert "2. Is the joint space better? **no: worse in a comparison**" in text
    assert "3. Do general captions get the larger deviation? **no**" in text


def test_runs_without_deviations_are_told(tmp_path):
    records = everything()
    seeded = [p for p in records if p.part == "seeds" and p.loss == "gaussian"]
    change(records, seeded[0], deviations=None, verdict="not finite", scores=None)
    assert " ± 0.06 (n = 2) |" in page(records, tmp_path)
    for piece in seeded:
        change(records, piece, deviations=None)
    assert "the larger deviation? **cannot be told**" in page(records, tmp_path)


# The command.
