"""The fleet: which host is slower than its like, which serves what, and which is not heard of."""
