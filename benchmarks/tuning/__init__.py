"""Searches measured beside those of others: the parts of `benchmarks.tune`."""
