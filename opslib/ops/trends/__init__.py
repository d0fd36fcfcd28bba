"""Trends: which figures changed their level over all runs, and when."""
