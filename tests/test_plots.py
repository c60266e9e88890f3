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


def looks(axes):
    """Colour and marker of every class."""
    return [
        (tuple(drawn.get_facecolor()[0]), drawn.get_paths()[0].vertices.tobytes())
        for drawn in axes.collections
    ]


@pytest.mark.parametrize("labels", [range(21), range(140), range(0, 14_000, 100)])
def test_no_two_classes_look_alike(labels):
    labels = np.array(labels)
    axes = plots.embedding_map(np.ones((len(labels), 2)), labels).axes[0]
    assert len(set(looks(axes))) == len(labels)


def test_a_class_looks_the_same_whichever_others_are_there():
    some, all_of_them = (
        plots.embedding_map(np.ones((len(labels), 2)), labels).axes[0]
        for labels in (np.array([3, 12]), np.arange(14))
    )
    assert looks(some) == [looks(all_of_them)[3], looks(all_of_them)[12]]


def test_rows_without_a_label_are_no_class():
    labels = np.array([-1, 0, 1, 5])
    axes = plots.embedding_map(np.ones((4, 2)), labels, class_names=["cat", "dog"]).axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["-1", "cat", "dog", "5"]
    assert looks(axes)[0][0] == pytest.approx((0.6, 0.6, 0.6, 1.0))


def test_texts_are_no_formulas(tmp_path):
    """What begins with a dollar sign, and does not end, would fail when it is drawn."""
    price = "$5_000^2 and $\\frac{1"
    figures = [
        plots.similarity_heatmap(np.eye(2), title=price, row_labels=[price, "b"]),
        plots.similarity_heatmap(np.eye(2), column_labels=[price, price]),
        plots.loss_curve(np.arange(3), {price: np.ones(3)}, title=price),
        plots.spectrum({price: np.eye(3)}, title=price),
        plots.embedding_map(np.ones((2, 2)), [0, 1], class_names=[price, price], title=price),
    ]
    for number, figure in enumerate(figures):
        figure.savefig(tmp_path / f"{number}.png")
    powers = plots.spectrum({"z": np.diag([1.0, 1e-3, 1e-6])}).axes[0]
    assert any(label.get_parse_math() for label in powers.get_yticklabels())


def test_names_that_begin_with_an_underscore_are_in_the_legend():
    names = ["_background", "cat"]
    figures = [
        plots.embedding_map(np.ones((2, 2)), [0, 1], class_names=names),
        plots.embedding_map(np.ones((2, 2)), [3, 4], class_names=["", "", "", *names]),
        plots.loss_curve([0], dict.fromkeys(names, np.ones(1))),
        plots.spectrum(dict.fromkeys(names, np.eye(3))),
    ]
    for figure in figures:
        assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == names
    assert [line.get_label() for line in figures[-1].axes[0].lines] == names


def test_nothing_to_draw_is_drawn_without_a_word(recwarn):
    for figure in (
        plots.embedding_map(np.ones((0, 2)), []),
        plots.loss_curve([], {}),
        plots.spectrum({}),
    ):
        figure.savefig("/dev/null", format="png")
    assert not list(recwarn)


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda: plots.embedding_map(np.ones((3, 2)), [0, 1]), r"\[3\], got shape \(2,\)"),
        (lambda: plots.embedding_map(np.ones((2, 2)), ["a", "b"]), "must be whole numbers.*'a'"),
        (lambda: plots.embedding_map(np.ones((2, 2)), [0, np.nan]), "must be whole numbers.*nan"),
        (lambda: plots.spectrum({"z": [[1.0, 2.0], [np.nan, 3.0]]}), "z: 1 of 2 rows.*is row 1"),
        (lambda: plots.spectrum({"z": np.ones((0, 3))}), r"z: .*got shape \(0, 3\)"),
    ],
)
def test_what_cannot_be_drawn_is_told(draw, said):
    with pytest.raises(ValueError, match=said):
        draw()


def test_letters_of_other_fonts_are_found_or_told():
    from matplotlib.font_manager import FontProperties, findfont
    from matplotlib.ft2font import FT2Font

    stix = FT2Font(findfont(FontProperties(family="STIXGeneral"))).get_charmap()
    usual = FT2Font(findfont(FontProperties())).get_charmap()
    letter = chr(next(c for c in stix if c not in usual and c > 255))
    figure = plots.embedding_map(np.ones((1, 2)), [0], class_names=[letter])
    (text,) = figure.axes[0].get_legend().get_texts()
    fonts = text.get_fontfamily()[1:]
    assert any(ord(letter) in FT2Font(findfont(name)).get_charmap() for name in fonts)
    nowhere = chr(0x10FFFD)  # of the private use area
    with pytest.warns(UserWarning, match="no installed font has .*: drawn as boxes"):
        plots.loss_curve([0], {"loss": [1.0]}, title=nowhere)


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
