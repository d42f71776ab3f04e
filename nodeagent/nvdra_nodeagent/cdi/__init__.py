"""CDI documents: find driver files, build edits, write and sweep."""
