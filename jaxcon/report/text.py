"""Text of a page: whatever a user's files are called, the page is valid UTF-8 and one document."""

import html
from typing import Any


def escape(text: str) -> str:
    r"""Returns text as HTML; what UTF-8 cannot hold (bytes of a file name) is escaped.

    Example:
      >>> escape("a < b"), escape("caf\udce9")
      ('a &lt; b', 'caf\\udce9')
    """
    return html.escape(text.encode("utf-8", "backslashreplace").decode())


def readable(value: Any) -> str:
    """Returns a setting as one would write it: with at most six digits.

    Example:
      >>> readable(2.4000000000000004), readable(1e-06), readable(128), readable(True)
      ('2.4', '1e-06', '128', 'True')
    """
    return f"{value:.6g}" if isinstance(value, float) else str(value)
