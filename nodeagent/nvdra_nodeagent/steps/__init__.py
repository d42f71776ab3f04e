"""One file per reversible step."""
