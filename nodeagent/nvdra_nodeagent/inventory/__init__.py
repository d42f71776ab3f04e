"""What is on this node."""
