"""Measurements of what holdtrue costs and gains."""
