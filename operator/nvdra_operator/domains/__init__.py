"""ComputeDomains: what belongs to one, what is there, what is to be done, what its status says."""
