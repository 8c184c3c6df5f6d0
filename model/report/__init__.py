"""The trainer's HTML page: runs, curves, errors."""
