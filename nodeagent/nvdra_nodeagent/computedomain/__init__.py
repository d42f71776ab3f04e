"""The driver of ComputeDomains on one node: channels, IMEX daemons, readiness between them."""
