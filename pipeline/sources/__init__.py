"""Adapters: from a release's layout to source videos."""
