"""Compiled plans: their format, what they are found by, and the directory where they are kept."""
