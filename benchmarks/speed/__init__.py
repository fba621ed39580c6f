"""How fast searches in this process are, against other libraries on the same data in the same process."""
