"""`sim optimise`: the best way to protect a stream within a budget."""
