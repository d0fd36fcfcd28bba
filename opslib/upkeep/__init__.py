"""Upkeep: maintenance, rotation, health and schedules; boring, fast, safe."""
