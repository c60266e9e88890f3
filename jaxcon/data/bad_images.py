"""What becomes of images that cannot be read, and how many may be skipped."""

from __future__ import annotations

from typing import Literal

BadImages = Literal["error", "skip"]
SKIPPED_SHARE = 0.01  # of the images that may be skipped
_FEW = 10  # that are no reason to stop, however few images there are


def too_many_to_skip(bad: int, seen: int) -> bool:
    """Returns whether so many images that cannot be read are an error, even where they are skipped.

    Example:
      >>> too_many_to_skip(10, 20), too_many_to_skip(11, 20), too_many_to_skip(11, 1100)
      (False, True, False)
    """
    return bad > max(_FEW, SKIPPED_SHARE * seen)
