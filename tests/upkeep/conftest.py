"""The fixtures of upkeep's tests."""

from tests.upkeep.crontabs import host
from tests.upkeep.places import place

__all__ = ["host", "place"]
