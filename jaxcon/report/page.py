"""The page: one HTML file that needs no others and no network."""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxcon.report.figures import Figure
from jaxcon.report.gallery import Gallery, gallery_html
from jaxcon.report.table import Table, table_html
from jaxcon.report.text import escape, readable


@dataclasses.dataclass(frozen=True)
class Page:
    """What a report shows, from top to bottom; the facts come before the figures.

    Attributes:
      title: heading, and the title of the browser tab.
      summary: a sentence or two.
      table: table of scores, if there are any.
      figures: figures and galleries, in order.
      settings: settings by the names of their flags; None is left out.
      notes: paragraphs.
      facts: what was learned from, by what, for how long and where.
    """

    title: str
    summary: str
    table: Table | None
    figures: Sequence[Figure | Gallery]
    settings: Mapping[str, Any]
    notes: Sequence[str] = ()
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)


def write_page(path: Path, page: Page) -> None:
    """Writes the page as one self-contained HTML file.

    Args:
      path: path of the file.
      page: what it shows; the files of its figures must exist.
    """
    body = [
        f"<h1>{escape(page.title)}</h1>",
        f'<p class="summary">{escape(page.summary)}</p>',
        table_html(page.table) if page.table else "",
        *(f"<p>{escape(note)}</p>" for note in page.notes),
        _list_html("facts", page.facts),
        "<section>",
        *(_figure_html(figure) for figure in page.figures),
        "</section>",
        "<h2>Settings</h2>",
        _list_html("settings", page.settings),
    ]
    text = _PAGE.format(title=escape(page.title), style=_STYLE, body="\n".join(body))
    path.write_text(text, encoding="utf-8")


def _figure_html(figure: Figure | Gallery) -> str:
    if isinstance(figure, Gallery):
        return gallery_html(figure)
    data = base64.b64encode(figure.path.read_bytes()).decode()
    caption = escape(figure.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _list_html(kind: str, values: Mapping[str, Any]) -> str:
    items = "\n".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(readable(value))}</dd></div>"
        for name, value in values.items()
        if value is not None
    )
    return f'<dl class="{kind}">{items}</dl>' if items else ""


_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 1.5rem 1rem 3rem; background: #fff;
  color: #1f2937; font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p { max-width: 46rem; }
.summary { font-size: 1.1rem; }
.scroll { overflow-x: auto; }
.columns { display: flex; flex-wrap: wrap; gap: 0 1.5rem; }
.columns > .scroll { max-width: 100%; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .9rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #e5e7eb; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { font-weight: 600; color: #4b5563; }
.strong { font-weight: 600; color: #1f2937; }
figure { margin: 2rem 0 0; }
figure > img { display: block; width: 100%; height: auto; }
figcaption { color: #4b5563; font-size: .92rem; margin-top: .4rem; max-width: 46rem; }
.gallery { margin: 0; }
.gallery th, .gallery td { border: 0; padding: .3rem .2rem .3rem 0; text-align: left;
  vertical-align: top; white-space: normal; font-size: .85rem; line-height: 1.3; }
.gallery th { font-weight: 400; color: #1f2937; max-width: 20rem; padding-right: .8rem; }
.gallery td { color: #4b5563; }
.gallery td:not(.after) { min-width: 4.6rem; }
.gallery th, .gallery .after { vertical-align: middle; }
.gallery .after { padding-left: .6rem; max-width: 26rem; }
.gallery img { display: block; margin: 3px; }
.gallery span { display: block; max-width: 4.4rem; font-size: .75rem;
  margin-top: .2rem; overflow-wrap: break-word; }
.gallery p { margin: 0 0 .2rem; color: #1f2937; overflow-wrap: anywhere; }
.gallery .framed { outline: 3px solid #16a34a; }
.gallery .coarse { image-rendering: pixelated; }
dl { display: grid; gap: .4rem 1rem; margin: 1rem 0 0; font-size: .92rem; }
dl.settings { grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); }
dl.facts div { display: grid; grid-template-columns: 8rem 1fr; }
dt { color: #4b5563; }
dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  table { font-size: .85rem; }
  th, td:first-child { white-space: normal; }
  th, td { padding: .4rem .35rem; }
  dl.facts div { grid-template-columns: 1fr; }
}
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
