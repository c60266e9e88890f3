"""The store in memory, for all tests of this folder."""

from tests.stores.objects import objects

__all__ = ["objects"]
