"""From inventory to ResourceSlices, and keeping them true in the API."""
