"""Published data sets, an adapter in a file."""
