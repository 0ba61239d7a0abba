"""Attacks on the real operator process, and the table of what each one costs both sides: `make hostile`."""
