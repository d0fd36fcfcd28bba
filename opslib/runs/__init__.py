"""Executed notebooks as reports: runner, scraps, figures, HTML, index, comparison and snapshot."""
