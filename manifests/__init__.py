"""Records, schemas, splits and integrity of a prepared data set. Imports nothing from the other packages."""
