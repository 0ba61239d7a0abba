"""Holds the API server's model against the real one: the same requests to both, and what must be the same."""
