"""What waits, and in which order: what has been seen, limits, deadlines and the queue of work. In memory only."""
