"""Bulk import: Milvus reads Parquet files from a staging area."""
