"""The API server as clients see it over HTTPS."""
