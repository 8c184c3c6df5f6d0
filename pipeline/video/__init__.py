"""Probe and decode a video file."""
