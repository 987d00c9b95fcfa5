"""Declare a machine-learning system in one file; holdtrue makes it so, and keeps it true."""
