"""An inverted index of sparse rows in this process."""
