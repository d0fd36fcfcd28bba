"""The fixtures of upkeep's tests."""

from tests.upkeep.crontabs import host

__all__ = ["host"]
