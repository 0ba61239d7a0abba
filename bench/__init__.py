"""The bench: what the operator costs and holds, measured on a real API server. `python -m bench --help` tells more."""
