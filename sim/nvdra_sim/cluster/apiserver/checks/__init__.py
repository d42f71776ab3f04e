"""What the API refuses: rules for objects, in the words of the API."""
