"""lps-audit: is a data set intact, leaking, biased, reproducible?"""
