"""The Ray engine: read, encode and write on several machines."""
