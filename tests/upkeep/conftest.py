"""The fixtures of upkeep's tests."""

from tests.upkeep.places import place

__all__ = ["place"]
