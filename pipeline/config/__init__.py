"""Parameters of a data set, and the TOML file that sets them."""
