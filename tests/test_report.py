"""The table, the figures and the page."""

import re

import numpy as np
import pytest

from jaxcon import plots, report
from jaxcon.report import Figure, Page, Table

TABLE = Table(
    ("features", "linear", "1 label"), [("raw", 0.9751, (0.634, 0.0521)), ("ours", 1, None)]
)


def test_the_table_is_aligned():
    lines = report.format_table(TABLE).splitlines()
    assert lines == [
        "features  linear      1 label",
        "raw        97.5%  63.4 ± 5.2%",
        "ours      100.0%            \N{EN DASH}",
    ]


@pytest.fixture
def page(tmp_path):
    report.draw(
        tmp_path / "a" / "line.png", lambda ax: plots.loss_curve([0, 1], {"loss": [2, 1]}, ax=ax)
    )
    figures = [Figure(tmp_path / "a" / "line.png", "A <falling> line.")]
    content = Page(
        "On <digits>", "It & learned.", TABLE, figures, {"seed": 0, "ema": None}, ["So."]
    )
    report.write_page(tmp_path / "report.html", content)
    return (tmp_path / "report.html").read_text()


def test_the_page_needs_nothing_else(page):
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    assert "http" not in page
    assert "<script" not in page
    assert "url(" not in page
    assert 'src="data:image/png;base64,iVBOR' in page
    assert 'name="viewport"' in page


def test_the_page_shows_everything_escaped(page):
    for text in (
        "On &lt;digits&gt;",
        "It &amp; learned.",
        "A &lt;falling&gt; line.",
        "63.4 ± 5.2%",
    ):
        assert text in page
    assert "<p>So.</p>" in page
    assert "<dt>seed</dt><dd>0</dd>" in page
    assert "ema" not in page


def test_neighbours_are_by_cosine_with_the_query_first():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 4)) * rng.uniform(0.1, 10, size=(30, 1))
    found = report.nearest_neighbours(features, [3, 7], k=4)
    for query, row in zip([3, 7], found, strict=True):
        cosines = [
            (features[query] @ other) / np.linalg.norm(features[query]) / np.linalg.norm(other)
            for other in features
        ]
        assert row.tolist() == sorted(range(30), key=lambda i: -cosines[i])[:5]
        assert row[0] == query


def test_a_copy_of_the_query_does_not_take_its_place():
    assert report.nearest_neighbours(np.ones((3, 2)), [2], k=2)[0, 0] == 2


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_of_images_is_drawn(tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 255, (2, 3, 8, 8, channels), dtype=np.uint8)
    report.draw_neighbours(tmp_path / "grid.png", images)
    assert (tmp_path / "grid.png").read_bytes()[:4] == b"\x89PNG"


def test_clusters_stay_apart_in_the_plane():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 15)
    points = report.to_plane(rng.normal(size=(45, 6)) + 30 * np.eye(6)[labels])
    centres = np.stack([points[labels == i].mean(0) for i in range(3)])
    nearest = np.linalg.norm(points[:, None] - centres, axis=-1).argmin(1)
    assert (nearest == labels).all()
