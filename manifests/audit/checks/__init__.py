"""The checks: a module per question, each ending with its tuple `CHECKS`."""
