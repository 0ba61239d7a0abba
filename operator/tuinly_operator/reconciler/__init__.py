"""The way of a token: gather what is, decide, act, tell."""
