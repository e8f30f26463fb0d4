"""Specs: the model of CDI 1.1.0, its grammar, reading and checking files, and which devices they define."""
