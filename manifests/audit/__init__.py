"""Open a data set, run the checks, compare data sets, report."""
