"""Speed of searches in this process, against other libraries on the same data."""
