"""A user's own pictures, `folder:PATH`, `tar:PATH` and `parquet:PATH`: which reader finds them."""

from __future__ import annotations

from jaxcon.data.readers.examples import Examples

KINDS = ("folder:", "tar:", "parquet:")


def is_own(dataset: str) -> bool:
    """Returns whether a dataset is the user's own.

    Example:
      >>> is_own("folder:/data/pets"), is_own("cifar10")
      (True, False)
    """
    return dataset.startswith(KINDS)


def find(dataset: str, *, captions: bool) -> Examples:
    """Finds the pictures of a dataset.

    Args:
      dataset: one for which `is_own`.
      captions: whether their captions are wanted; else their classes.

    Raises:
      DataError: with one line that says what is wrong and how to fix it.
    """
    kind, _, path = dataset.partition(":")
    if kind == "tar":
        from jaxcon.data.readers.tar import find_in_tars

        return find_in_tars(path, captions=captions)
    if kind == "parquet":
        from jaxcon.data.readers.parquet import find_in_parquet

        return find_in_parquet(path, captions=captions)
    if captions:
        from jaxcon.data.readers.captioned_folder import find_captioned

        return find_captioned(path)
    from jaxcon.data.readers.folder import find_in_folder

    return find_in_folder(path)
