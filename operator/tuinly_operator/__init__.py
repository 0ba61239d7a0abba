"""tuinly-operator keeps Tuinly access tokens fresh in Kubernetes Secrets."""
