"""A run's table, figures and page: rows and arrays in, text and files out.

The page is one file that needs no others and no network: figures are inlined, there are no scripts.

>>> table = Table(("features", "linear", "kNN"), [("raw pixels", 0.975, 0.961)])
>>> print(format_table(table))
features    linear    kNN
raw pixels   97.5%  96.1%
"""

from jaxcon.report.figures import (
    Figure,
    draw,
    draw_neighbours,
    nearest_neighbours,
    to_plane,
)
from jaxcon.report.gallery import Gallery, Picture, Strip
from jaxcon.report.page import Page, write_page
from jaxcon.report.table import Cell, Table, format_cell, format_table

__all__ = [
    "Cell",
    "Figure",
    "Gallery",
    "Page",
    "Picture",
    "Strip",
    "Table",
    "draw",
    "draw_neighbours",
    "format_cell",
    "format_table",
    "nearest_neighbours",
    "to_plane",
    "write_page",
]
