"""A toy: how often a coin that is thrown so many times shows heads."""
