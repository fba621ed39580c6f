"""Ingestion: rows out of sources, encoded, into a collection."""
