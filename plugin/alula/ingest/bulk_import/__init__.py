"""Sinks: encoded rows into a collection, by Milvus's write calls or by bulk import."""
