"""Certificates of data sets: what an audit measured, in a file that others recompute and a trainer may demand."""
