"""The fields of objects: which there are, in which version, with which defaults."""
