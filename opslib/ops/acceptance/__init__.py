"""The walk through every operation once."""
