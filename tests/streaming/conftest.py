"""A problem of two sets of rows, and one of a set with itself."""

import pytest

from tests.streaming.problems import one_set, problem


@pytest.fixture(params=["two sets", "one set"])
def data(request):
    return problem(23, 37) if request.param == "two sets" else one_set(29)
