"""The `nvdra` command line."""
