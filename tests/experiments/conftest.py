"""Fixtures of the commands' tests."""

import jax
import pytest

from tests.experiments.trajectories import folders
from tests.stores.objects import objects

__all__ = ["objects"]


@pytest.fixture(autouse=True, scope="session")
def eight_devices():
    """Commands divide the CPU into fewer devices, unless all are set up before: conftest.py does."""
    assert len(jax.devices()) == 8


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The folders that commands learn from, by the command's name."""
    return folders(tmp_path_factory.mktemp("data"))
