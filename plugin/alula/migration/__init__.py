"""Move a collection to another encoder or index type while it serves."""
