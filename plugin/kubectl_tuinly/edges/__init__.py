"""The doors to the world: kubectl, the terminal, YAML, and what the process finds around it."""
