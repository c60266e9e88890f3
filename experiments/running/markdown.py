"""Tables of pages in Markdown."""

from collections.abc import Sequence
from pathlib import Path

_START, _END = "<!-- table -->\n", "<!-- end of table -->"


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table.

    Example:
      >>> print(table(["loss", "n"], [["clip", "5"]]))
      | loss | n |
      |---|---|
      | clip | 5 |
    """
    lines = [heading, ["---"] * len(heading), *rows]
    texts = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([texts[0], texts[1].replace(" ", ""), *texts[2:]])


def insert(page: Path, text: str) -> None:
    """Replaces what stands between the two markers of a page, `table` and `end of table`."""
    before, rest = page.read_text(encoding="utf-8").split(_START, 1)
    after = rest.split(_END, 1)[1]
    page.write_text(f"{before}{_START}{text}\n{_END}{after}", encoding="utf-8")
