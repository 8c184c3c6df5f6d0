"""The two results that most checks end with."""
