"""Servers of the same model side by side, and what ours stands."""
