"""Presets, checkpoints, stages and the training loop."""
