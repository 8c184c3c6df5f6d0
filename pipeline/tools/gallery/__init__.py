"""The gallery of a data set: a page of clips that play, and of rejects."""
