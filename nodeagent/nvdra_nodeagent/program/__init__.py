"""What a node agent program needs besides its work: options, metrics, endpoints, signals."""
