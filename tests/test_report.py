"""The table, the figures and the page."""

import base64
import dataclasses
import io
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jaxcon import plots, report
from jaxcon.report import Figure, Gallery, Page, Picture, Strip, Table
from jaxcon.report.gallery import gallery_html
from jaxcon.report.table import table_html

CHINESE = chr(0x4E2D)

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
    strip = Strip([Picture(np.zeros((8, 8, 1)), "a < b")], f"5 $ {CHINESE}")
    content = Page(
        "On <digits>",
        "It & learned.",
        TABLE,
        [*figures, Gallery([strip], "Gallery.")],
        {"seed": 0, "ema": None, "warmup_epochs": 24 * 0.1},
        ["So."],
        {"Device": "1 <CPU>"},
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
    assert "<dt>warmup_epochs</dt><dd>2.4</dd>" in page  # 2.4000000000000004
    assert "<dt>Device</dt><dd>1 &lt;CPU&gt;</dd>" in page
    assert "<dt>ema" not in page


def test_texts_beside_pictures_are_texts_in_any_script(page):
    assert f"<th>5 $ {CHINESE}</th>" in page
    assert "<span>a &lt; b</span>" in page
    assert "<figcaption>Gallery.</figcaption>" in page


def test_bold_is_what_is_said_to_be_and_not_the_last_row():
    for emphasis, expected in (
        (None, []),
        ("raw", ["raw", "97.5%", "63.4 ± 5.2%"]),
        ("linear", ["linear", "97.5%", "100.0%"]),
    ):
        text = table_html(dataclasses.replace(TABLE, emphasis=emphasis))
        assert re.findall(r'class="strong">([^<]*)<', text) == expected


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 9, 1), (300, 200, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_picture_of_any_size_is_the_picture(shape, dtype):
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    image = values if dtype == np.uint8 else values.astype(np.float32) / 255
    text = gallery_html(Gallery([Strip([Picture(image)])], ""))
    (data,) = re.findall(r'base64,([^"]*)', text)
    stored = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    if max(shape) < 192:
        np.testing.assert_array_equal(stored.reshape(shape), values)
    else:
        assert max(stored.shape) == 192
    assert 0 < int(re.findall(r'width="([0-9]+)"', text)[0]) <= 68


def test_the_page_is_written_where_the_locale_knows_ascii_alone(tmp_path):
    code = (
        "from jaxcon.report import *; from pathlib import Path; write_page("
        f"Path({str(tmp_path / 'page.html')!r}), Page(chr({ord(CHINESE)}), chr(177) + chr(0xDCE9), "
        "None, [], {}))"
    )
    ascii_alone = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **ascii_alone})
    page = (tmp_path / "page.html").read_bytes().decode("utf-8")
    assert f"<h1>{CHINESE}</h1>" in page
    assert "±" + chr(92) + "udce9<" in page  # a byte of a file's name that is no text


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


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 3), (1, 1, 3)])
def test_a_grid_of_images_is_drawn(tmp_path, shape):
    images = np.random.default_rng(0).integers(0, 255, (2, 3, *shape), dtype=np.uint8)
    report.draw_neighbours(tmp_path / "grid.png", images)
    assert (tmp_path / "grid.png").read_bytes()[:4] == b"\x89PNG"


def test_clusters_stay_apart_in_the_plane():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 15)
    points = report.to_plane(rng.normal(size=(45, 6)) + 30 * np.eye(6)[labels])
    centres = np.stack([points[labels == i].mean(0) for i in range(3)])
    nearest = np.linalg.norm(points[:, None] - centres, axis=-1).argmin(1)
    assert (nearest == labels).all()


@pytest.mark.parametrize("dim", [1, 6])
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_features_of_a_collapsed_encoder_have_a_map_too(rows, dim):
    """t-SNE of rows that are equal ends the process; of two places, the map shows two."""
    equal = np.full((rows, dim), 0.1, np.float32)
    assert np.ptp(report.to_plane(equal + 1e-8), axis=0).max() < 1e-5
    two = equal + np.arange(rows)[:, None] % 2
    places = np.unique(report.to_plane(two).round(4), axis=0)
    assert places.shape == (min(rows, 2), 2)
    with pytest.raises(ValueError, match="expected finite values"):
        report.to_plane(equal * np.nan)
