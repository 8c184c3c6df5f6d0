"""The audit's HTML page."""
