"""From a claim to a plan, from a plan to files and an answer."""
