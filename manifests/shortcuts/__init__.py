"""How well the label of a clip is told by what is no forgery: the panel beside a split set."""
