"""Thin command-line programs over lps.pipeline, lps.model and lps.manifests."""
