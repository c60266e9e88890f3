"""A table of numbers: on the console and as HTML."""

import dataclasses
from collections.abc import Sequence

from jaxcon.report.text import escape

# A share, a share with its standard deviation, or words.
Cell = float | tuple[float, float] | str | None


@dataclasses.dataclass(frozen=True)
class Table:
    """A heading and rows; a number is shown as a percentage, a pair as mean ± deviation.

    Attributes:
      heading: headings of the columns.
      rows: rows, each as long as the heading.
      emphasis: the row (by its first cell) or the column (by its heading) to set in bold.
    """

    heading: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    emphasis: str | None = None


def format_cell(cell: Cell) -> str:
    """Returns a cell as text.

    Example:
      >>> format_cell(0.5), format_cell((0.831, 0.02)), format_cell(None)
      ('50.0%', '83.1 ± 2.0%', '–')

    Args:
      cell: a share, (mean, standard deviation), words or None.

    Returns:
      The text.
    """
    if cell is None:
        return "–"  # noqa: RUF001
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int | float):
        return f"{100 * cell:.1f}%"
    return f"{100 * cell[0]:.1f} ± {100 * cell[1]:.1f}%"


def format_table(table: Table) -> str:
    """Returns the table for a terminal: first column left-aligned, the others right-aligned.

    Args:
      table: heading and rows of equal length.

    Returns:
      Lines, without a final newline.
    """
    lines = [list(table.heading), *([format_cell(cell) for cell in row] for row in table.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.heading))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if column else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def table_html(table: Table) -> str:
    """Returns the table as HTML, in a box that scrolls if the screen is narrower."""

    def line(cells: Sequence[Cell], tag: str) -> str:
        texts = [escape(format_cell(cell)) for cell in cells]
        parts = [
            f"<{tag}{_bold(table, cells[0], heading)}>{text}</{tag}>"
            for heading, text in zip(table.heading, texts, strict=True)
        ]
        return f"<tr>{''.join(parts)}</tr>"

    rows = "\n".join(line(row, "td") for row in table.rows)
    return (
        '<div class="scroll"><table>\n'
        f"<thead>{line(list(table.heading), 'th')}</thead>\n<tbody>{rows}</tbody>\n</table></div>"
    )


def _bold(table: Table, row: Cell, column: str) -> str:
    wanted = table.emphasis is not None and table.emphasis in (row, column)
    return ' class="strong"' if wanted else ""
