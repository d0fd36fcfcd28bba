"""Measuring: statistics, quiet timing, comparisons of two arms, and what is built on them."""
