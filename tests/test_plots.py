"""Pictures are drawn from the data given: colours, chance line, groups."""

import io
import math

import numpy as np
import pytest

from jaxcon import plots


def test_heatmap_shows_the_matrix_on_a_fixed_scale():
    matrix = np.random.default_rng(0).uniform(-0.2, 0.3, (20, 30))
    figure = plots.similarity_heatmap(matrix, title="before")
    (image,) = figure.axes[0].images
    np.testing.assert_allclose(image.get_array(), matrix, rtol=1e-6)
    assert image.get_clim() == (-1.0, 1.0)
    assert figure.axes[0].get_title() == "before"


def test_small_heatmap_prints_its_numbers():
    texts = plots.similarity_heatmap(np.eye(3), row_labels=list("abc")).axes[0].texts
    assert sorted({t.get_text() for t in texts}) == ["0.00", "1.00"]


def test_collapsed_and_distinct_batches_look_different(tmp_path):
    shades = []
    for name, matrix in {"equal": np.ones((7, 7)), "distinct": np.eye(7)}.items():
        figure = plots.similarity_heatmap(matrix)
        figure.savefig(tmp_path / f"{name}.png")
        image = figure.axes[0].images[0]
        shades.append(len(np.unique(image.to_rgba(image.get_array()), axis=0)))
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
    assert shades[0] < shades[1]


def test_heatmap_refuses_a_vector():
    with pytest.raises(ValueError, match=r"\[n, m\], got shape \(3,\)"):
        plots.similarity_heatmap(np.ones(3))


def test_loss_curve_draws_chance():
    figure = plots.loss_curve(np.arange(5), {"train": np.ones(5)}, num_candidates=7)
    chance = figure.axes[0].lines[1].get_ydata()
    np.testing.assert_allclose(chance, math.log(7))


def test_spectrum_is_that_of_the_centred_rows():
    rows = np.random.default_rng(0).normal(size=(12, 4)) + 5
    (line,) = plots.spectrum({"z": rows}).axes[0].lines
    eigenvalues = np.linalg.eigvalsh(np.cov(rows.T, bias=True))[::-1] * 12
    np.testing.assert_allclose(np.square(line.get_ydata()), eigenvalues, rtol=1e-6)


def test_embedding_map_groups_by_class():
    points = np.random.default_rng(0).normal(size=(9, 2))
    labels = np.arange(9) % 3
    axes = plots.embedding_map(points, labels, class_names=["x", "y", "z"]).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["x", "y", "z"]
    np.testing.assert_allclose(axes.collections[1].get_offsets(), points[labels == 1])
    with pytest.raises(ValueError, match=r"\[n, 2\]"):
        plots.embedding_map(np.ones((4, 3)))


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_what_is_counted_has_whole_ticks(count):
    steps = np.arange(count)
    figures = [
        plots.similarity_heatmap(np.eye(count)),
        plots.loss_curve(steps, {"loss": steps / 2}, num_candidates=8),
        plots.spectrum({"z": np.random.default_rng(0).normal(size=(count + 1, count))}),
    ]
    for figure, axes in zip(figures, ("xy", "x", "x"), strict=True):
        figure.draw_without_rendering()
        for axis in axes:
            low, high = sorted(getattr(figure.axes[0], f"get_{axis}lim")())
            ticks = getattr(figure.axes[0], f"get_{axis}ticks")()
            seen = [tick for tick in ticks if low <= tick <= high]
            assert seen
            assert all(float(tick).is_integer() for tick in seen)


def test_the_loss_of_a_single_step_is_a_point():
    (line,) = plots.loss_curve([0], {"loss": [2.0]}).axes[0].lines
    assert line.get_marker() == "o"


def test_names_of_data_are_text():
    """Not mathematics, and not left out for an underscore."""
    names = [r"$\frac{1}$", "_cat", "costs 5 $ or $x_1$"]
    maps = plots.embedding_map(np.eye(3)[:, :2], np.arange(3), class_names=names)
    assert [text.get_text() for text in maps.axes[0].get_legend().get_texts()] == names
    heat = plots.similarity_heatmap(np.eye(3), row_labels=names, column_labels=names)
    for figure in (maps, heat):
        figure.savefig(io.BytesIO(), format="png")
