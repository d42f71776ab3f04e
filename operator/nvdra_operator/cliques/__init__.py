"""Who is in which clique of a domain, and in which slot: written by the controller alone."""
