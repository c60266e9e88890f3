"""A cache folder of the tests' own, and digits prepared in it once."""

import pytest

from jaxcon.data.sources import load
from tests.stores.objects import objects

__all__ = ["objects"]


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="session")
def digits(data_dir):
    return load("digits", data_dir=data_dir)
