"""The ports to the machine and their real adapters."""
