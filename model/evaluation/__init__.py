"""Scores, metrics and export of a trained detector."""
