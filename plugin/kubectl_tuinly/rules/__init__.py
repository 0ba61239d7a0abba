"""What is told of what is there. Pure: no I/O, and no time but what is handed in."""
