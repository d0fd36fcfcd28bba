"""Notebooks share the experiments of the rooms that they tell of."""

from tests.ops.drill.conftest import drill_place

__all__ = ["drill_place"]
