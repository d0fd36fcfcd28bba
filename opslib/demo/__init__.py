"""The embedded demo experiment: rendered pills, a small trained network, two exports of it."""
