"""Releases that prove they restore, and the way back to the last good model."""
