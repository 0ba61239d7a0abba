"""Chaos on the real thing: `python -m tests.chaos`, and the soak beside it, `python -m tests.chaos.soak`."""
