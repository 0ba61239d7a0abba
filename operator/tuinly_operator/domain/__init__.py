"""What things are, and what to do about them. Pure: no I/O, no waiting, no chance, no time but what is handed in."""
