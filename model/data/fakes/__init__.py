"""Fakes that are made of real clips while these are read."""
