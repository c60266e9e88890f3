"""Figures of a page: what panels share is drawn once, and no figure can end a run."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from experiments.images import figures
from experiments.images.figures import embedding_map, input_views, neighbours
from experiments.running.examples import take
from experiments.running.figures import drawn, matrices
from jaxcon import plots, report
from jaxcon.data.splits import Dataset, Split
from jaxcon.report.gallery import gallery_html

FOLDER = Path("figures")  # nothing is written there


@pytest.fixture
def canvases(monkeypatch):
    """The matplotlib figures that are drawn, in place of their files."""
    found = []
    monkeypatch.setattr(report.figures, "_save", lambda figure, path: found.append(figure))
    return found


def dataset(classes, each, *, side=4):
    """Images whose every pixel is their class."""
    labels = np.repeat(np.arange(classes), each).astype(np.int32)
    images = np.broadcast_to(labels[:, None, None, None], (len(labels), side, side, 3))
    split = Split(images.astype(np.uint8), labels)
    return Dataset("toy", split, split, split, tuple(f"class {i}" for i in range(classes)))


def legends(canvas):
    return [axes.get_legend() for axes in canvas.axes if axes.get_legend() is not None]


@pytest.mark.parametrize(("classes", "count"), [(3, 1), (20, 1), (21, 0)])
def test_a_legend_is_printed_once_and_only_where_colours_differ(canvases, classes, count):
    data = dataset(classes, 5)
    features = np.random.default_rng(0).normal(size=(5 * classes, 8))
    kinds = {"untrained encoder": features, "trained encoder": features}
    caption = embedding_map(FOLDER, kinds, data).caption
    (canvas,) = canvases
    assert [axes.get_title() for axes in canvas.axes] == list(kinds)
    assert len(legends(canvas)) == count
    if count:
        names = [text.get_text() for text in legends(canvas)[0].get_texts()]
        assert names == list(data.class_names)
    assert "several of" not in caption


def test_classes_that_look_alike_are_told(canvases, monkeypatch):
    monkeypatch.setattr(plots, "TOLD_APART", 2)
    features = {"trained encoder": np.eye(6)}
    caption = embedding_map(FOLDER, features, dataset(3, 2)).caption
    assert "each colour for several of the 3 classes" in caption


def test_letters_that_no_font_has_are_one_line(tmp_path, capsys):
    def draw():
        for _ in range(2):
            plots.loss_curve([0], {"loss": [1.0]}, title=chr(0x10FFFC)).savefig(tmp_path / "a.png")
        return report.Figure(tmp_path / "a.png", "")

    figures, failures = drawn([("loss", draw), ("again", draw)])
    assert (len(figures), failures) == (2, [])
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert said[0].startswith("figure loss: no installed font has ")


def test_names_that_the_font_lacks_stand_in_the_caption(canvases, monkeypatch):
    monkeypatch.setattr(report, "to_plane", lambda features: features[:, :2])
    cat, long = chr(0x732B), "x" * 200
    for names, legend, said in [
        (("a", "$b$", "_c"), ["a", "$b$", "_c"], "coloured by class: "),
        (("a", cat, "c"), ["1", "2", "3"], f"coloured by class (1 a, 2 {cat}, 3 c): "),
        (("a", "b", long), ["a", "b", long[:29] + "..."], "coloured by class: "),
    ]:
        data = dataclasses.replace(dataset(3, 5), class_names=names)
        assert said in embedding_map(FOLDER, {"trained encoder": np.eye(15)}, data).caption
        assert [text.get_text() for text in legends(canvases[-1])[0].get_texts()] == legend


def test_a_map_of_many_images_has_all_classes(canvases, monkeypatch):
    monkeypatch.setattr(figures, "MAPPED", 12)
    monkeypatch.setattr(report, "to_plane", lambda features: features[:, :2])
    data = dataset(4, 50)
    embedding_map(FOLDER, {"trained encoder": np.eye(200)}, data)
    assert [len(points.get_offsets()) for points in canvases[0].axes[0].collections] == [3] * 4


def test_matrices_share_one_scale_of_colours(canvases):
    values = {"before": np.eye(12), "after": -np.eye(12)}
    matrices(FOLDER, values, rows="image", columns="caption", label="cosine")
    panels = [axes for axes in canvases[0].axes if axes.images]
    bars = [axes for axes in canvases[0].axes if axes.get_label() == "<colorbar>"]
    assert [axes.get_title() for axes in panels] == ["before training", "after training"]
    assert [axes.get_ylabel() for axes in bars] == ["cosine"]
    for axes in panels:
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("caption", "image")
        assert axes.images[0].get_clim() == (-1, 1)


def test_neighbours_are_shown_with_their_classes_and_those_of_the_class_are_framed():
    data = dataset(3, 4)
    features = np.random.default_rng(1).normal(size=(12, 6))
    gallery = neighbours(data.test, features, data.class_names)
    queries = [strip.pictures[0].text for strip in gallery.strips]
    assert sorted(queries.count(name) for name in data.class_names) == [2, 3, 3]
    for strip in gallery.strips:
        query, *others = strip.pictures
        assert not query.framed
        assert len(others) == 5
        for other in others:
            assert other.framed == (other.text == query.text)
            assert other.text == f"class {other.image[0, 0, 0]}"
    assert "framed" in gallery.caption


def test_without_classes_neighbours_have_neither_names_nor_frames():
    split = Split(np.zeros((3, 4, 4, 1), np.uint8))
    gallery = neighbours(split, np.eye(3), None)
    assert [len(strip.pictures) for strip in gallery.strips] == [3] * 3  # all that there are
    assert not any(p.framed or p.text for strip in gallery.strips for p in strip.pictures)
    assert "framed" not in gallery.caption


def test_input_images_stand_above_their_views():
    def views(split, rows):
        images = take(split, rows)
        return images / 255, 1 - images / 255

    data = dataset(16, 3)
    gallery = input_views(data.train, views, data.class_names)
    image, one, another = gallery.strips
    assert len({picture.text for picture in image.pictures}) == 8
    for original, first, second in zip(image.pictures, one.pictures, another.pictures, strict=True):
        np.testing.assert_array_equal(first.image, original.image / 255)
        np.testing.assert_array_equal(second.image, 1 - original.image / 255)
    assert gallery_html(gallery).count("<img") == 24


def test_a_figure_that_cannot_be_drawn_leaves_a_sentence_and_the_others(capsys):
    def fails():
        raise RuntimeError("\n$x_1$ is\nno formula ")

    figure = report.Figure(FOLDER, "A figure.")
    figures, sentences = drawn([("a", lambda: figure), ("b", fails), ("c", lambda: figure)])
    assert figures == [figure, figure]
    assert sentences == ["The figure b is missing: RuntimeError, $x_1$ is no formula."]
    assert capsys.readouterr().out == sentences[0] + "\n"


def test_a_long_reason_is_cut(capsys):
    def fails():
        raise ValueError("x" * 10_000)

    (sentence,) = drawn([("a", fails)])[1]
    assert len(sentence) < 300
    assert re.search(r"x{10}", capsys.readouterr().out)
