"""The whole operator in a simulated world: several replicas on virtual time, one history for each seed."""
