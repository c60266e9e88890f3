"""Keeps the tests of one loss on one worker of pytest-xdist (``--dist loadgroup``): they share what
they compile."""

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        case = getattr(item, "callspec", None) and item.callspec.params.get("case")
        if case is not None:
            item.add_marker(pytest.mark.xdist_group(case.id))
