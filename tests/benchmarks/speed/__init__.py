"""How fast a search in one process is."""
