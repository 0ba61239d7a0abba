"""The commands, one module each: what is asked of the cluster, and what is told."""
